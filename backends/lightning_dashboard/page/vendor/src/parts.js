// What the page uses of others' packages, as one module: `./build.sh` writes ../parts.js.
export { h, render, Fragment } from "preact";
export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
export { batch, computed, effect, signal, useComputed, useSignal, useSignalEffect } from "@preact/signals";
export { default as htm } from "htm";
export { default as uPlot } from "uplot";
export { diffLines, diffWordsWithSpace } from "diff";
export { Virtualizer, elementScroll, observeElementOffset, observeElementRect } from "@tanstack/virtual-core";
