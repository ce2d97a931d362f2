"""A trained model onto an FPGA board: folded, quantised to int8, cut into tiles, run.

    from accelops import deploy
    deploy.save(deploy.export(model.eval(), example_inputs), "model.pt2")      # for accelops fpga deploy
    module = deploy.compile(model, example_inputs, board="pynq-z2", calibration=loader)
    with fpga.on(driver):
        logits = module(images)
    print(module.report(evaluation=loader))

archive.py reads exported programs safely; graph.py makes a graph of layers; ranges.py and quantise.py find scales and
integers; placement.py and packing.py say what runs where, and how it lies there; program.py runs the steps, on a board
(engine.py) or by the integer reference (reference.py), which must agree to the bit.
"""

from __future__ import annotations

from .archive import load, save
from .graph import export
from .module import Deployed, Verification, compile
from .placement import Unsupported
from .report import Report

__all__ = ["Deployed", "Report", "Unsupported", "Verification", "compile", "export", "load", "save"]
