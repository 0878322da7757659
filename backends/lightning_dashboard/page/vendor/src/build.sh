#!/usr/bin/env bash
# Writes ../parts.js, ../uplot.css and ../LICENSES.txt from the packages in package-lock.json. Needs npm.
# Nobody has to run it to use the dashboard or to work on it: what it writes is committed.
set -euo pipefail
cd "$(dirname "$0")"
npm ci --silent
npx esbuild parts.js --bundle --minify --format=esm --target=es2022 --legal-comments=none --charset=utf8 --outfile=../parts.js
cp node_modules/uplot/dist/uPlot.min.css ../uplot.css
for name in preact htm @preact/signals @preact/signals-core uplot diff @tanstack/virtual-core; do
    version=$(node -p "require('./node_modules/$name/package.json').version")
    printf '%s %s\n\n' "$name" "$version"
    cat "node_modules/$name/LICENSE"
    printf '\n%s\n\n' "------------------------------------------------------------"
done > ../LICENSES.txt
rm -rf node_modules
