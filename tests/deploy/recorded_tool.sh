#!/bin/sh
# A stand-in for a tool of AMD's, in tests alone: it writes down how it was called, and where asked leaves files of the
# names that the real one would leave. It builds nothing. Copied to the names of the tools.
#   RECORDED: the file to write to.  LEAVES: names of files to make here, for a call that begins with LEAVER.  FAILS: the
#   tool that ends with an error.
name=$(basename "$0")
printf '%s\n' "$PWD|$name $*" >> "$RECORDED"
[ "$name" = "${FAILS:-}" ] && exit 7
case "$name $*" in "${LEAVER:-nobody}"*)
  for file in $LEAVES; do printf '%s, no bitstream: a stand-in' "$name" > "$file"; done
esac
while [ $# -gt 1 ]; do  # the real ones make the folder that they work in
  [ "$1" = --work_dir ] && mkdir -p "$2"
  shift
done
exit 0
