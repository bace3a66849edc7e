#!/bin/sh
# Makes the picture of pushhttp/README.md anew. It needs chromium and, to make it small, pngquant or nothing.
set -eu
cd "$(dirname "$0")"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
PUSH_REQUIRE_PEERS=1 PUSH_SCREENSHOTS="$dir" go test -count=1 -run 'TestBrowser/story' .
if command -v pngquant >/dev/null; then
	pngquant --force --output ../story.png 32 "$dir/readme.png"
else
	cp "$dir/readme.png" ../story.png
fi
ls -l ../story.png
