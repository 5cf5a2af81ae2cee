// Attention over tokens: heads as thumbnails, tokens that answer to pointer and keys, the matrix of
// the chosen head. data = {prompts: [{tokens, patterns: {"5.1": base64}}]}, where a pattern has one
// byte a cell of the lower triangle, row after row; the token of the row is the one that looks.
WIDGETS.attention = (() => {
  const STOPS = 9; // of the colour scale in widgets.css
  const LETTERS = { all: 14, one: 8 }; // of a label beside the matrix: of each token, of the chosen one
  const FONT = 11;
  const THUMBNAIL = 46; // pixels, as in widgets.css
  const WIDEST = 560;
  const CELLS = { least: 3, most: 22, saved: 16, labelled: 9 };
  const WAYS = { from: "looks at", to: "is looked at by" };

  const unpack = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const amount = (cells, query, key) => (key > query ? 0 : cells[(query * (query + 1)) / 2 + key]);
  const clipped = (word, most) => (word.length > most ? `${word.slice(0, most - 1)}…` : word);
  const isolated = (word) => `\u2068${word}\u2069`; // right-to-left words turn nothing else around
  const share = (byte) => written(byte / 255);

  function luminance(color) { // relative, as in WCAG 2
    const [r, g, b] = color.map((x) => (x <= 10 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  // The scale of the theme that is shown: a CSS colour and an ink that reads on it, for each byte.
  function paints(host) {
    const probe = host.appendChild(el("i"));
    const read = (name) => {
      probe.style.color = `var(${name})`;
      return getComputedStyle(probe).color;
    };
    const stops = Array.from({ length: STOPS }, (_, i) => read(`--heat-${i}`).match(/\d+/g).map(Number));
    const [ink, soft, line, accent, card] = ["--ink", "--soft", "--line", "--accent", "--card"].map(read);
    probe.remove();
    const rgb = Array.from({ length: 256 }, (_, byte) => {
      const place = (byte / 255) * (STOPS - 1);
      const left = Math.min(Math.floor(place), STOPS - 2);
      return stops[left].map((low, i) => Math.round(low + (stops[left + 1][i] - low) * (place - left)));
    });
    const heat = rgb.map((color) => `rgb(${color})`);
    const inks = rgb.map((color) => (luminance(color) > 0.179 ? "#000" : "#fff"));
    return { rgb, heat, inks, ink, soft, line, accent, card };
  }

  // One drawing for the screen and for the file: what can paint rectangles, frames and words.
  function canvasPen(canvas, side) {
    const dense = window.devicePixelRatio || 1;
    canvas.width = canvas.height = side * dense;
    canvas.style.width = canvas.style.height = `${side}px`;
    const context = canvas.getContext("2d");
    context.scale(dense, dense);
    return {
      fill: (x, y, wide, high, color) => {
        context.fillStyle = color;
        context.fillRect(x, y, wide, high);
      },
      frame: (x, y, wide, high, color) => {
        context.strokeStyle = color;
        context.lineWidth = 1.5;
        context.strokeRect(x, y, wide, high);
      },
      words: (x, y, text, color, { size = FONT, bold = false, turned = false, end = false } = {}) => {
        context.save();
        context.translate(x, y);
        if (turned) context.rotate(-Math.PI / 2);
        context.font = `${bold ? "bold " : ""}${size}px ${getComputedStyle(canvas).fontFamily}`;
        context.textAlign = end ? "right" : "left";
        context.fillStyle = color;
        context.fillText(text, 0, 0);
        context.restore();
      },
    };
  }

  function svgPen(svg, family) {
    const box = (x, y, width, height, paint) => svg.append(shape("rect", { x, y, width, height, ...paint }));
    return {
      fill: (x, y, wide, high, color) => box(x, y, wide, high, { fill: color }),
      frame: (x, y, wide, high, color) =>
        box(x, y, wide, high, { fill: "none", stroke: color, "stroke-width": 1.5 }),
      words: (x, y, text, color, { size = FONT, bold = false, turned = false, end = false } = {}) => {
        const turn = turned ? `rotate(-90 ${x} ${y})` : null;
        const node = shape("text", { x, y, transform: turn }, text);
        node.style.font = `${bold ? "bold " : ""}${size}px ${family}`;
        node.style.textAnchor = end ? "end" : "start";
        node.style.fill = color;
        svg.append(node);
      },
    };
  }

  // Arrow keys walk through the buttons of a box, of which one is reached with Tab.
  function walk(box) {
    const goTo = (button) => {
      for (const each of box.children) each.tabIndex = each === button ? 0 : -1;
    };
    box.addEventListener("focusin", (event) => goTo(event.target));
    box.addEventListener("keydown", (event) => {
      const all = [...box.children];
      const now = all.indexOf(event.target);
      const across = all.filter((each) => each.offsetTop === all[0].offsetTop).length;
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
      const next = { Home: 0, End: all.length - 1 }[event.key] ?? now + (steps[event.key] ?? NaN);
      if (now < 0 || Number.isNaN(next)) return;
      event.preventDefault();
      all[Math.max(0, Math.min(next, all.length - 1))].focus();
    });
    return goTo;
  }

  return (host, data) => {
    const heads = Object.keys(data.prompts[0].patterns);
    const state = { prompt: 0, head: heads[0], kept: heads[0], token: 0, pinned: false, way: "from" };
    const unpacked = new Map();
    let paint = null;

    const choice = el("select");
    const ways = el("div", { class: "ways", role: "group", "aria-label": "Direction" });
    const grid = el("div", { class: "heads", role: "group", "aria-label": "Heads" });
    const said = el("p", { class: "said", "aria-live": "polite" });
    const words = el("div", { class: "words", role: "group", "aria-label": "Tokens" });
    const canvas = el("canvas", { role: "img" });
    const tip = el("div", { class: "tip" });
    const matrix = el("div", { class: "matrix" }, canvas);
    const controls = el("div", { class: "controls" }, el("label", {}, "Prompt ", choice), ways);
    const root = el("div", { class: "attention-viewer" }, controls, grid, said,
      el("div", { class: "shown" }, words, matrix), tip);
    tip.hidden = true;
    controls.firstChild.hidden = data.prompts.length < 2;
    grid.hidden = heads.length < 2;
    host.append(root);
    const toHead = walk(grid);
    const toToken = walk(words);

    const tokens = () => data.prompts[state.prompt].tokens;
    const named = (place) => `${isolated(tokens()[place])} (${place})`;

    function cellsOf(head) {
      const name = `${state.prompt} ${head}`;
      if (!unpacked.has(name)) unpacked.set(name, unpack(data.prompts[state.prompt].patterns[head]));
      return unpacked.get(name);
    }

    // What the chosen token gives to another, or gets from it.
    function between(other) {
      const cells = cellsOf(state.head);
      return state.way === "from" ? amount(cells, state.token, other) : amount(cells, other, state.token);
    }

    function paintThumbnail(button) {
      const cells = cellsOf(button.dataset.head);
      const n = tokens().length;
      const small = button.firstChild;
      small.width = small.height = n;
      small.style.imageRendering = n < THUMBNAIL ? "pixelated" : "auto";
      const picture = new ImageData(n, n);
      for (let query = 0, cell = 0; query < n; query++) {
        for (let key = 0; key <= query; key++, cell++) {
          picture.data.set([...paint.rgb[cells[cell]], 255], 4 * (query * n + key));
        }
      }
      small.getContext("2d").putImageData(picture, 0, 0);
    }

    function paintWords() {
      [...words.children].forEach((button, place) => {
        const byte = between(place);
        button.style.background = paint.heat[byte];
        button.style.color = paint.inks[byte];
        button.lastChild.textContent = byte < 3 ? "" : share(byte).replace(/^0/, "");
        button.toggleAttribute("data-chosen", place === state.token);
        button.setAttribute("aria-pressed", String(state.pinned && place === state.token));
      });
    }

    function layout(room, saved) {
      const n = tokens().length;
      const fitted = (letters) => {
        const longest = Math.max(...tokens().map((word) => Math.min(word.length, letters)));
        const edge = 10 + Math.round(longest * FONT * 0.62);
        const fitting = Math.floor((Math.min(room, WIDEST) - edge) / n);
        const cell = saved ? CELLS.saved : Math.max(CELLS.least, Math.min(CELLS.most, fitting));
        return { n, letters, edge, cell, side: edge + n * cell + 2 };
      };
      const all = fitted(LETTERS.all);
      return all.cell < CELLS.labelled ? fitted(LETTERS.one) : all;
    }

    function paintMatrix(pen, { n, edge, cell, letters }) {
      const cells = cellsOf(state.head);
      const gap = cell > 6 ? 1 : 0;
      for (let query = 0, at = 0; query < n; query++) {
        for (let key = 0; key <= query; key++, at++) {
          const [x, y] = [edge + key * cell, edge + query * cell];
          pen.fill(x, y, cell - gap, cell - gap, paint.heat[cells[at]]);
        }
      }
      const size = Math.min(FONT, Math.max(CELLS.labelled, cell));
      tokens().forEach((word, place) => {
        const chosen = place === state.token;
        if (letters === LETTERS.one && !chosen) return;
        const middle = edge + (place + 0.5) * cell + 0.35 * size;
        const how = { size, bold: chosen };
        const color = chosen ? paint.ink : paint.soft;
        pen.words(edge - 5, middle, clipped(word, letters), color, { ...how, end: true });
        pen.words(middle, edge - 5, clipped(word, letters), color, { ...how, turned: true });
      });
      const start = edge + state.token * cell - 0.5;
      const along = state.way === "from" ? (state.token + 1) * cell : (n - state.token) * cell;
      if (state.way === "from") pen.frame(edge - 0.5, start, along, cell, paint.accent);
      else pen.frame(start, start, cell, along, paint.accent);
    }

    function say() {
      const most = tokens().map((_, place) => place).sort((a, b) => between(b) - between(a));
      const told = most.slice(0, 3).filter((place) => between(place) > 2)
        .map((place) => `${named(place)} ${share(between(place))}`);
      const nothing = state.way === "from" ? "nothing in particular" : "no token";
      said.textContent =
        `Head ${state.head}: ${named(state.token)} ${WAYS[state.way]} ${told.join(", ") || nothing}.`;
      const ends = "Rows are the tokens that look, columns what they look at.";
      canvas.setAttribute("aria-label", `Attention of head ${state.head} on ${tokens().length} tokens. ${ends}`);
    }

    function draw() {
      const size = layout(root.clientWidth);
      paintWords();
      paintMatrix(canvasPen(canvas, size.side), size);
      say();
    }

    function chooseHead(head) {
      state.head = head;
      for (const button of grid.children) {
        button.setAttribute("aria-pressed", String(button.dataset.head === state.kept));
        button.toggleAttribute("data-chosen", button.dataset.head === head);
      }
      draw();
    }

    function chooseToken(place, { pin = false } = {}) {
      if (pin) state.pinned = !(state.pinned && place === state.token);
      else if (state.pinned) return;
      state.token = place;
      draw();
    }

    function fillHeads() {
      grid.replaceChildren(...heads.map((head) => {
        const button = el("button", { type: "button", "data-head": head, "aria-label": `Head ${head}` },
          el("canvas", { "aria-hidden": "true" }), el("span", {}, head));
        button.addEventListener("pointerenter", () => chooseHead(head));
        button.addEventListener("focus", () => chooseHead(head));
        button.addEventListener("click", () => {
          state.kept = head;
          chooseHead(head);
        });
        return button;
      }));
    }

    function fillWords() {
      words.replaceChildren(...tokens().map((word, place) => {
        const button = el("button", { type: "button", dir: "auto", "aria-label": `${word}, token ${place}` },
          el("span", {}, word), el("small"));
        button.addEventListener("pointerenter", () => chooseToken(place));
        button.addEventListener("focus", () => chooseToken(place));
        button.addEventListener("click", () => chooseToken(place, { pin: true }));
        return button;
      }));
    }

    function choosePrompt(prompt) {
      Object.assign(state, { prompt, token: data.prompts[prompt].tokens.length - 1, pinned: false });
      fillWords();
      toToken(words.children[state.token]);
      repaint();
    }

    // All that depends on the colours of the theme.
    function repaint() {
      paint = paints(root);
      for (const button of grid.children) paintThumbnail(button);
      chooseHead(state.head);
    }

    // The cell of the matrix under the pointer; null beside them.
    function pointed(event) {
      const { edge, cell, n } = layout(root.clientWidth);
      const [query, key] = [event.offsetY, event.offsetX].map((at) => Math.floor((at - edge) / cell));
      return key >= 0 && key <= query && query < n ? { query, key } : null;
    }

    function point(event) {
      const found = pointed(event);
      tip.hidden = found === null;
      if (found === null) return;
      chooseToken(state.way === "from" ? found.query : found.key);
      const byte = amount(cellsOf(state.head), found.query, found.key);
      tip.textContent = `${named(found.query)} looks at ${named(found.key)}: ${share(byte)}`;
      const frame = root.getBoundingClientRect();
      const left = event.clientX - frame.left - tip.offsetWidth / 2;
      tip.style.left = `${Math.max(0, Math.min(left, frame.width - tip.offsetWidth))}px`;
      tip.style.top = `${event.clientY - frame.top - tip.offsetHeight - 12}px`;
    }

    data.prompts.forEach(({ tokens: all }, index) => {
      const start = all.slice(0, 12).join(" ");
      choice.append(el("option", { value: index }, `${index}: ${start}${all.length > 12 ? " …" : ""}`));
    });
    choice.addEventListener("change", () => choosePrompt(Number(choice.value)));
    for (const [way, label] of Object.entries({ from: "looks at", to: "looked at by" })) {
      const button = el("button", { type: "button", "aria-pressed": String(way === "from") }, label);
      button.addEventListener("click", () => {
        state.way = way;
        for (const each of ways.children) each.setAttribute("aria-pressed", String(each === button));
        draw();
      });
      ways.append(button);
    }
    const restore = () => state.head !== state.kept && chooseHead(state.kept);
    grid.addEventListener("pointerleave", restore);
    grid.addEventListener("focusout", (event) => grid.contains(event.relatedTarget) || restore());
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    canvas.addEventListener("click", (event) => {
      const found = pointed(event);
      if (found) chooseToken(state.way === "from" ? found.query : found.key, { pin: true });
    });
    root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      tip.hidden = true;
      state.pinned = false;
      draw();
    });

    fillHeads();
    toHead(grid.firstChild);
    choosePrompt(0);
    let width = root.clientWidth;
    new ResizeObserver(() => {
      if (root.clientWidth === width) return;
      width = root.clientWidth;
      draw();
    }).observe(root);
    new MutationObserver(repaint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    for (const media of ["(prefers-color-scheme: dark)", "print"]) {
      window.matchMedia(media).addEventListener("change", repaint);
    }

    function toSvg() {
      const size = layout(0, true);
      const [width, height] = [Math.max(size.side, 420), size.side + 26];
      const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
      const family = getComputedStyle(root).fontFamily;
      svgPen(svg, family).words(4, 16, `Head ${state.head}, prompt ${state.prompt}`, paint.ink,
        { size: 13, bold: true });
      const drawing = shape("g", { transform: "translate(0 26)" });
      paintMatrix(svgPen(drawing, family), size);
      svg.append(drawing);
      return svg;
    }
    return { toSvg };
  };
})();
