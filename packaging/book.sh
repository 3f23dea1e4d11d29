#!/usr/bin/env bash
# Builds the pages as a book, target/book/index.html, and checks every link in it. The book's source is a copy of the
# pages and of what they link to, laid as in the project, so the same links hold on a page and in the book.
#
# usage: packaging/book.sh    (needs python3)
set -euo pipefail
cd "$(dirname "$0")/.."
to=$(realpath -m "${CARGO_TARGET_DIR:-target}/book")

source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
mkdir -p "$source/tests/c"
cp book.toml ./*.md LICENSE "$source"
cp -r docs include examples "$source"
cp -r tests/c/misuse "$source/tests/c"
# The summary stands at the top of the source, and the pages below docs.
sed -e 's|](\([a-z_-]*\.md\))|](docs/\1)|' -e 's|](\.\./|](|' docs/SUMMARY.md > "$source/SUMMARY.md"
rm "$source/docs/SUMMARY.md"
# mdbook makes index.html of a README.md below the top, and leaves the links to it as they are.
mv "$source/examples/README.md" "$source/examples/index.md"
sed -i 's|examples/README\.md|examples/index.md|' "$source/README.md" "$source/SUMMARY.md"
rm -rf "$to"
packaging/tools.sh mdbook build --dest-dir "$to" "$source"
packaging/links.py "$to"
