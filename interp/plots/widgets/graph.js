// A circuit by layer, from the input below to the logits above. Nodes are buttons in an SVG. Edges are
// drawn behind them on three canvases: the many weak ones, a part a frame and as thin as is quick, the
// strong ones, and those of one node, so that pointing at a node redraws no others.
const DASHES = [[7, 4], [1.5, 3.5], [], []]; // query, key, value, and the one way into the others
const READS = ["query", "key", "value", ""];
const STRONG = 1000; // edges as thick as their score says; the others are thin
const PART = 3000; // thin edges a frame
const LISTED = 8; // edges of a node in a table
const LEFT = 46; // room for the numbers of layers

// What does not change: sizes on the slider, sums of scores, and the edges of every node.
function prepared(data) {
  const nodes = data.nodes.map(([name, row, kind, label, places, score], index) =>
    ({ index, name, row, kind, label, places, score, into: [], from: [] }));
  const share = [0];
  let strongest = 0;
  data.score.forEach((score, edge) => {
    share.push(share[edge] + Math.abs(score || 0));
    strongest = Math.max(strongest, Math.abs(score || 0));
    nodes[data.source[edge]].from.push(edge);
    for (const node of readers(data, edge)) nodes[node].into.push(edge);
  });
  const rows = [];
  for (const node of nodes) (rows[node.row] = rows[node.row] || []).push(node);
  return { data, nodes, rows, share, strongest, sizes: sizesOf(data), count: data.score.length };
}

// The nodes that read over an edge: all of a group where a key or a value is shared.
function readers(data, edge) {
  const first = data.reader[edge];
  if (data.way[edge] !== 1 && data.way[edge] !== 2) return [first];
  return Array.from({ length: data.group }, (_, more) => first + more);
}

// From 5 edges to all, each a twentieth more than the one before; the circuit and measured sizes too.
function sizesOf(data) {
  const all = data.score.length;
  const sizes = new Set([data.kept, all, ...data.measured.map((each) => each.edges)]);
  for (let size = 5; size < all; size = Math.max(size + 1, Math.round(size * 1.05))) sizes.add(size);
  return [...sizes].filter((size) => size > 0 && size <= all).sort((a, b) => a - b);
}

// Where every node stands, for so many pixels: a column a head, the MLP last and a little higher.
function layout(graph, width) {
  const columns = Math.max(1, ...graph.rows.map((row) => row.length));
  const column = Math.max(24, Math.min(104, (width - LEFT - 8) / columns));
  const step = graph.rows.length <= 14 ? 58 : 40;
  const size = { w: Math.min(column - 5, 84), h: step === 58 ? 27 : 19 };
  const across = LEFT + columns * column + 8;
  const down = (graph.rows.length - 1) * step + size.h + 26;
  const at = graph.nodes.map((node) => {
    const row = graph.rows[node.row];
    const only = node.kind === "input" || node.kind === "logits";
    const place = only ? columns / 2 : (node.kind === "mlp" ? columns - 1 : row.indexOf(node)) + 0.5;
    const raised = node.kind === "mlp" && row.length > 1 ? step * 0.24 : 0;
    return {
      x: LEFT + place * column,
      y: down - size.h / 2 - 6 - node.row * step - raised,
      w: only ? 84 : Math.max(size.w, node.kind === "mlp" ? 30 : 0),
    };
  });
  return { at, column, step, across, down, h: size.h };
}

// The eight numbers of an edge's curve: begin, two handles, end.
function curve(graph, plan, edge) {
  const { data, nodes } = graph;
  const from = plan.at[data.source[edge]];
  const ends = readers(data, edge).map((node) => plan.at[node]);
  const to = ends[0];
  const way = data.way[edge];
  const port = way < 3 ? (way - 1) * to.w * 0.3 : 0; // queries end left, keys in the middle, values right
  const x = ends.reduce((sum, end) => sum + end.x, 0) / ends.length + port;
  const top = from.y - plan.h / 2;
  if (nodes[data.source[edge]].row === nodes[data.reader[edge]].row) { // a head to its layer's MLP
    const side = to.x - to.w / 2;
    return [from.x, top, from.x, top - plan.step * 0.3, side - plan.column * 0.4, to.y, side, to.y];
  }
  const bottom = to.y + plan.h / 2;
  const layers = nodes[data.reader[edge]].row - nodes[data.source[edge]].row;
  const behind = layers > 1 && Math.abs(x - from.x) < plan.column * 0.6; // the nodes between
  const aside = behind ? plan.column * 0.6 : 0;
  const lift = (top - bottom) * 0.42;
  return [from.x, top, from.x + aside, top - lift, x + aside, bottom + lift, x, bottom];
}

function thickness(graph, edge) {
  return 0.6 + 5.4 * Math.sqrt(Math.abs(graph.data.score[edge] || 0) / (graph.strongest || 1));
}

function side(score) {
  return score === null ? "none" : score < 0 ? "below" : "above";
}

// Three figures, with a sign.
function figures(value) {
  if (value === null || value === undefined) return "none";
  const digits = value === 0 ? 2 : Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(Math.abs(value)))));
  return (value > 0 ? "+" : "") + written(value, digits);
}

function counted(number, word) {
  return `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
}

function percent(share) {
  return `${written(100 * share, Math.abs(share) < 0.0995 ? 1 : 0)}%`;
}

// What is known of how much some edges do alone, and what they leave unexplained.
function explained({ data: { whole, measured, kept, unknown } }, size) {
  if (whole && size === kept) return `This circuit: ${toldOf(whole)}`;
  if (!measured.length) return whole ? `The circuit of ${counted(kept, "edge")}: ${toldOf(whole)}` : unknown;
  const apart = (each) => Math.abs(Math.log(each.edges / size));
  const near = measured.reduce((best, each) => (apart(each) < apart(best) ? each : best));
  const these = near.edges === size ? "Alone, as many of the strongest edges" : "The nearest size measured";
  return `${these} (${counted(near.edges, "edge")}): ${toldOf(near)}`;
}

function toldOf({ f, low, high, random, n }) {
  const range = low === null ? "no interval" : `${percent(1 - high)} to ${percent(1 - low)}`;
  const beside = random === null ? "" : `; random circuits leave ${percent(1 - random)}`;
  return `${percent(1 - f)} is unexplained (${range}${beside}; n\u00a0=\u00a0${n}).`;
}

WIDGETS.graph = (host, data) => {
  const graph = prepared(data);
  const { nodes } = graph;
  const logits = nodes.length - 1;
  const shown = { size: data.kept || graph.sizes[0] || 0, all: false, found: new Set() };
  Object.assign(shown, { open: null, over: null, at: logits }); // nodes
  let plan = layout(graph, 720);
  let frame = 0;
  let drawn = null; // what the canvases of all edges show

  // Controls.
  const most = graph.sizes.length - 1;
  const slider = el("input", { type: "range", min: 0, max: most, "aria-label": "Edges shown" });
  slider.value = graph.sizes.indexOf(shown.size);
  const count = el("output", { class: "count" });
  const everything = el("input", { type: "checkbox" });
  const search = el("input", { type: "search", placeholder: "2.1, m0 or a role", "aria-label": "Find a node" });
  const said = el("span", { class: "said", role: "status" });
  const left = el("p", { class: "left" });
  const controls = el("div", { class: "controls" },
    el("label", { class: "size" }, el("span", {}, "Edges"), slider), count,
    el("label", { class: "switch" }, everything, "All nodes"),
    el("label", { class: "find" }, search), said);
  if (graph.sizes.length < 2) controls.querySelector(".size").hidden = true;

  // The picture.
  const [weak, strong, lit] = ["edges weak", "edges strong", "edges lit"].map((name) =>
    el("canvas", { class: name, "aria-hidden": "true" }));
  const drawing = shape("svg", { role: "group", "aria-label": "Nodes, input below, logits above" });
  const numbers = shape("g", { class: "layers", "aria-hidden": "true" });
  const buttons = nodes.map(button);
  drawing.append(numbers, ...buttons);
  const stage = el("div", { class: "stage" }, weak, strong, lit, drawing);
  const scroll = el("div", { class: "picture" }, stage);
  const panel = el("aside", { class: "panel", "aria-label": "The open node" });
  const printed = el("div", { class: "printed" });
  host.append(
    el("div", { class: "screen" }, controls, left,
      el("div", { class: "halves" }, el("div", { class: "half" }, scroll, legend(graph)), panel)),
    printed);

  function button(node) {
    const told = titleOf(node) + (node.label ? `, ${node.label}` : "");
    const name = { role: "button", tabindex: -1, "aria-label": told, "data-node": node.index };
    return shape("g", { class: `node ${node.kind}`, ...name },
      shape("title", {}, told), shape("rect", { rx: node.kind === "mlp" ? 10 : 4 }),
      shape("text", { class: "name" }), shape("text", { class: "role" }));
  }

  // Which nodes are seen: those of the edges shown, and what was asked for.
  function visible() {
    const asked = [...shown.found, ...(shown.open === null ? [] : [shown.open])];
    return shown.all ? new Set(nodes.keys()) : new Set([...atEnds(shown.size), ...asked]);
  }

  let ends = { size: -1 };
  function atEnds(size) {
    if (ends.size !== size) {
      const seen = new Set([0, logits]);
      for (let edge = 0; edge < size; edge += 1) {
        seen.add(data.source[edge]);
        for (const node of readers(data, edge)) seen.add(node);
      }
      ends = { size, seen };
    }
    return ends.seen;
  }

  // The node whose edges stand out.
  function active() {
    return shown.open !== null ? shown.open : shown.over;
  }

  function own(node, which) {
    return nodes[node][which].filter((edge) => edge < shown.size);
  }

  // A node and those that it shares edges with.
  function around(node) {
    if (node === null) return new Set(nodes.keys());
    const readersOf = own(node, "from").flatMap((edge) => readers(data, edge));
    return new Set([node, ...readersOf, ...own(node, "into").map((edge) => data.source[edge])]);
  }

  function refresh() {
    const seen = visible();
    const node = active();
    const linked = around(node);
    if (!seen.has(shown.at)) shown.at = logits;
    stage.classList.toggle("focused", node !== null);
    buttons.forEach(({ classList }, index) => {
      classList.toggle("away", !seen.has(index));
      classList.toggle("dim", !linked.has(index));
      classList.toggle("open", index === shown.open);
      classList.toggle("match", shown.found.has(index));
      buttons[index].setAttribute("tabindex", index === shown.at ? 0 : -1);
      buttons[index].setAttribute("aria-pressed", index === shown.open);
    });
    const share = data.total ? `, ${percent(graph.share[shown.size] / data.total)} of the total |score|` : "";
    const inside = shown.size === data.kept ? " (the circuit)" : "";
    const of = data.scored > data.kept ? ` of ${data.scored.toLocaleString("en")}` : "";
    count.textContent = `${shown.size.toLocaleString("en")}${of} edges${inside}${share}`;
    slider.setAttribute("aria-valuetext", count.textContent);
    left.textContent = explained(graph, shown.size);
    paint();
  }

  function place() {
    plan = layout(graph, Math.max(scroll.clientWidth || 720, 240));
    stage.style.width = `${plan.across}px`;
    stage.style.height = `${plan.down}px`;
    drawn = null;
    drawing.setAttribute("viewBox", `0 0 ${plan.across} ${plan.down}`);
    nodes.forEach((node, index) => placed(buttons[index], node, plan));
    numbers.replaceChildren(...layerNumbers(graph, plan));
    paint();
  }

  // One redraw a frame, however often it is asked for; the first edges are the strongest.
  function paint() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      const inks = inksOf(host);
      const node = active();
      const edges = node === null ? [] : [...own(node, "into"), ...own(node, "from")];
      strokes(cleared(lit), inks, edges, 1, Infinity);
      const asked = [shown.size, plan.across, inks.above].join();
      if (asked === drawn) return;
      drawn = null;
      const first = Array.from({ length: Math.min(STRONG, shown.size) }, (_, place) => place);
      strokes(cleared(strong), inks, first.reverse(), faintness(shown.size), Infinity);
      rest(cleared(weak), inks, STRONG, asked);
    });
  }

  function rest(pen, inks, begin, asked) {
    const edges = [];
    for (let edge = begin; edge < Math.min(shown.size, begin + PART); edge += 1) edges.push(edge);
    strokes(pen, inks, edges, faintness(shown.size), 1);
    if (begin + PART < shown.size) frame = requestAnimationFrame(() => rest(pen, inks, begin + PART, asked));
    else drawn = asked;
    host.dataset.drawn = Math.min(shown.size, begin + PART);
  }

  function cleared(canvas) {
    const sharp = Math.min(2, window.devicePixelRatio || 1);
    canvas.width = plan.across * sharp; // which clears it
    canvas.height = plan.down * sharp;
    const pen = canvas.getContext("2d");
    pen.scale(sharp, sharp);
    return pen;
  }

  function strokes(pen, inks, edges, alpha, widest) {
    pen.globalAlpha = alpha;
    for (const edge of edges) {
      const [x, y, ...handles] = curve(graph, plan, edge);
      pen.strokeStyle = inks[side(data.score[edge])];
      pen.lineWidth = Math.min(widest, thickness(graph, edge));
      pen.setLineDash(DASHES[data.way[edge]]);
      pen.beginPath();
      pen.moveTo(x, y);
      pen.bezierCurveTo(...handles);
      pen.stroke();
    }
  }

  // Opening a node.
  function open(index) {
    shown.open = index;
    if (index !== null) shown.at = index;
    const close = () => {
      open(null);
      buttons[index].focus();
    };
    fill(panel, graph, index, host.id, { own, close, open: walk });
    said.textContent = index === null ? "" : `${nodes[index].name} is open.`;
    refresh();
    const { top } = panel.getBoundingClientRect();
    if (index !== null && top > window.innerHeight - 80) panel.scrollIntoView({ block: "nearest" });
  }

  function walk(index) {
    open(index);
    buttons[index].focus({ preventScroll: true });
  }

  // The node that an arrow key goes to: a neighbour in the layer, or the other end of the strongest edge.
  function next(index, key) {
    const seen = visible();
    const row = graph.rows[nodes[index].row].filter((node) => seen.has(node.index));
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const beside = row[row.indexOf(nodes[index]) + (key === "ArrowRight" ? 1 : -1)];
      return beside ? beside.index : index;
    }
    const up = key === "ArrowUp";
    const [edge] = own(index, up ? "from" : "into");
    if (edge !== undefined) return up ? data.reader[edge] : data.source[edge];
    for (let r = nodes[index].row + (up ? 1 : -1); graph.rows[r]; r += up ? 1 : -1) {
      const other = graph.rows[r].find((node) => seen.has(node.index));
      if (other) return other.index;
    }
    return index;
  }

  function which(event) {
    const node = event.target.closest(".node");
    return node ? Number(node.dataset.node) : null;
  }

  function over(index) {
    if (shown.over === index) return;
    shown.over = index;
    refresh();
  }

  drawing.addEventListener("click", (event) => {
    const index = which(event);
    if (index !== null) open(index === shown.open ? null : index);
  });
  drawing.addEventListener("keydown", (event) => {
    const index = which(event);
    if (index === null) return;
    if (event.key === "Enter" || event.key === " ") open(index === shown.open ? null : index);
    else if (event.key === "Escape") open(null);
    else if (event.key === "Home" || event.key === "End") buttons[event.key === "Home" ? 0 : logits].focus();
    else if (event.key.startsWith("Arrow")) buttons[next(index, event.key)].focus();
    else return;
    event.preventDefault();
  });
  drawing.addEventListener("focusin", (event) => {
    shown.at = which(event);
    over(shown.at);
  });
  drawing.addEventListener("focusout", () => over(null));
  drawing.addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse") over(which(event));
  });
  drawing.addEventListener("pointerleave", () => over(null));
  slider.addEventListener("input", () => {
    shown.size = graph.sizes[slider.value];
    refresh();
  });
  slider.addEventListener("change", () => shown.open !== null && open(shown.open));
  everything.addEventListener("change", () => {
    shown.all = everything.checked;
    refresh();
  });
  search.addEventListener("input", () => {
    const words = search.value.trim().toLowerCase();
    const hits = nodes.filter(({ name, label }) =>
      words && (name.startsWith(words) || label.toLowerCase().includes(words)));
    shown.found = new Set(hits.map((node) => node.index));
    const way = hits.length ? "; Enter opens them one by one" : "";
    said.textContent = words ? `${counted(hits.length, "node")} found${way}.` : "";
    refresh();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !shown.found.size) return;
    const exact = [...shown.found].filter((index) => nodes[index].name === search.value.trim());
    const hits = [...new Set([...exact, ...shown.found])];
    open(hits[(hits.indexOf(shown.open) + 1) % hits.length]);
  });

  // Colours follow the theme, sizes the page; paper shows the circuit as it is.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", paint);
  new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  new ResizeObserver(place).observe(scroll);
  const paper = () => printed.replaceChildren(picture(data.kept || shown.size, null));
  window.addEventListener("beforeprint", paper);
  window.matchMedia("print").addEventListener("change", ({ matches }) => matches && paper());

  // Edges and nodes as one SVG, as they are shown or as they are printed.
  function picture(size, node) {
    const linked = around(node);
    const seen = node === null && size !== shown.size ? atEnds(size) : visible();
    const lit = new Set(node === null ? [] : [...own(node, "into"), ...own(node, "from")]);
    const dim = (edge) => (node !== null && !lit.has(edge) ? " dim" : "");
    const edges = Array.from({ length: size }, (_, place) => size - 1 - place).map((edge) => {
      const [x, y, ...handles] = curve(graph, plan, edge).map((value) => Math.round(value * 10) / 10);
      return shape("path", {
        class: `edge ${side(data.score[edge])}${dim(edge)}`, d: `M${x} ${y}C${handles.join(" ")}`,
        "stroke-width": thickness(graph, edge).toFixed(2), "stroke-opacity": faintness(size).toFixed(2),
        "stroke-dasharray": DASHES[data.way[edge]].join(" ") || null,
      });
    });
    const boxes = nodes.filter(({ index }) => seen.has(index)).map(({ kind, index }) => {
      const box = buttons[index].cloneNode(true);
      box.setAttribute("class", `node ${kind}${linked.has(index) ? "" : " dim"}`);
      for (const name of ["role", "tabindex", "aria-pressed"]) box.removeAttribute(name);
      return box;
    });
    const words = [`${counted(size, "edge")}. ${explained(graph, size)}`,
      `Red: ${data.signs[0]}; blue: ${data.signs[1]}.`,
      "Dashed: query; dotted: key; solid: value, MLP or logits."];
    const lines = words.map((text, row) =>
      shape("text", { class: "words", x: 4, y: plan.down + 16 + 18 * row }, text));
    const [width, height] = [Math.max(plan.across, 640), plan.down + 62]; // the words need room
    const sizes = { width, height, viewBox: `0 0 ${width} ${height}` };
    return shape("svg", sizes, ...edges, numbers.cloneNode(true), ...boxes, ...lines);
  }

  place();
  open(null);
  return { toSvg: () => picture(shown.size, active()) };
};

function faintness(size) {
  return Math.max(0.25, Math.min(0.9, 5 / Math.log2(size + 8)));
}

// A node's box and words where the plan puts them.
function placed(group, node, plan) {
  const [box, name, role] = [...group.children].slice(1);
  const { x, y, w } = plan.at[node.index];
  const room = Math.floor((w - 6) / 4.7); // letters
  const told = node.label && plan.h > 24 && room >= 8;
  filled(box, { x: x - w / 2, y: y - plan.h / 2, width: w, height: plan.h }, []);
  filled(name, { x, y: y + (told ? -1 : 4) }, []);
  filled(role, { x, y: y + 9 }, []);
  name.textContent = node.kind === "head" && w < 28 ? node.name.split(".")[1] : node.name;
  const short = node.label.length > room ? `${node.label.slice(0, room - 1)}\u2026` : node.label;
  role.textContent = told ? short : "";
}

function layerNumbers(graph, plan) {
  return graph.rows.slice(1, -1).map(([first], layer) =>
    shape("text", { x: LEFT - 12, y: plan.at[first.index].y + 4 }, String(layer)));
}

// Custom properties say light-dark(...): a probe turns them into colours.
function inksOf(host) {
  const probe = el("span");
  host.append(probe);
  const ink = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const inks = { below: ink("below"), above: ink("above"), none: ink("soft") };
  probe.remove();
  return inks;
}

function legend({ data: { signs }, strongest }) {
  const entry = (words, kind, width = 2.5, dash = []) => {
    const look = { class: kind, "stroke-width": width, "stroke-dasharray": dash.join(" ") || null };
    const line = shape("line", { x1: 1, x2: 33, y1: 5, y2: 5, ...look });
    return el("span", {}, shape("svg", { width: 34, height: 10, "aria-hidden": "true" }, line), words);
  };
  const widths = [1, 0.1].map((part) =>
    entry(`|score| ${figures(strongest * part).slice(1)}`, "none", 0.6 + 5.4 * Math.sqrt(part)));
  const scores = [entry(signs[0], "below"), entry(signs[1], "above"), ...widths];
  const ways = ["query", "key", "value, MLP or logits"].map((words, way) =>
    entry(words, "none", 2.5, DASHES[way]));
  return el("div", { class: "legend" }, ...(strongest ? scores : ["These edges have no scores."]), ...ways);
}

// What is known of one node.
function fill(panel, graph, index, id, act) {
  panel.classList.toggle("filled", index !== null);
  if (index === null) {
    const hint = "Click a node, or walk there with the arrow keys and press Enter: its scores, role, strongest "
      + "edges and attention open here.";
    panel.replaceChildren(el("p", { class: "hint" }, hint));
    return;
  }
  const { data } = graph;
  const node = graph.nodes[index];
  const close = el("button", { type: "button", class: "close", "aria-label": "Close" }, "\u00d7");
  close.addEventListener("click", act.close);
  const facts = el("dl", {}, ...factsOf(graph, node, act.own).flatMap(([name, words]) =>
    [el("dt", {}, name), el("dd", {}, words)]));
  panel.replaceChildren(close, el("p", { class: "title" }, titleOf(node)), facts,
    edgeTable(graph, act, index, "into"), edgeTable(graph, act, index, "from"));
  const known = data.attention ? data.attention.prompts : [];
  const prompts = known.filter(({ patterns }) => Object.hasOwn(patterns, node.name));
  if (prompts.length && WIDGETS.attention) attend(panel, data.attention, prompts, node, id);
  else if (data.prompts.length) {
    const items = data.prompts.map((text) => el("li", {}, text));
    panel.append(el("p", { class: "title" }, "Example prompts"), el("ul", {}, ...items));
  }
}

function titleOf({ kind, name }) {
  return { head: "Head ", mlp: "MLP ", input: "", logits: "" }[kind] + name;
}

function factsOf({ data }, node, own) {
  const sum = (edges) => figures(edges.reduce((all, edge) => all + (data.score[edge] || 0), 0));
  const told = (edges) =>
    counted(edges.length, "edge") + (edges.length ? `, scores add up to ${sum(edges)}` : "");
  const facts = [];
  if (node.kind === "head" || node.kind === "mlp") {
    facts.push(["Role", node.label || "not known"], ["In the prompt", node.places || "everywhere"]);
  }
  if (node.score !== null) facts.push(["Score", figures(node.score)]);
  return [...facts, ["In", told(own(node.index, "into"))], ["Out", told(own(node.index, "from"))]];
}

function edgeTable({ data, nodes }, act, index, which) {
  const edges = act.own(index, which);
  if (!edges.length) return "";
  const rows = edges.slice(0, LISTED).map((edge) => {
    const other = nodes[which === "into" ? data.source[edge] : data.reader[edge]];
    const go = el("button", { type: "button", "aria-label": `Go to ${other.name}` }, other.name);
    go.addEventListener("click", () => act.open(other.index));
    const score = el("td", { class: `num ${side(data.score[edge])}` }, figures(data.score[edge]));
    return el("tr", {}, el("th", { scope: "row" }, go), el("td", {}, READS[data.way[edge]]), score);
  });
  const more = edges.length > LISTED ? `, the strongest ${LISTED} of ${edges.length}` : "";
  const heads = [which === "into" ? "From" : "To", "Read as", "Score"].map((name, column) =>
    el("th", { scope: "col", class: column === 2 ? "num" : null }, name));
  return el("table", {}, el("caption", {}, `Edges ${which === "into" ? "in" : "out"}${more}`),
    el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
}

// Where this head looks, in the viewer of attention.
function attend(panel, given, prompts, { name }, id) {
  const about = { role: "group", "aria-label": `Attention of ${name}` };
  const host = el("div", { class: "widget attention", id: `${id}-attention`, ...about });
  panel.append(el("p", { class: "title" }, "Attention"), host);
  const own = prompts.map(({ tokens, patterns }) => ({ tokens, patterns: { [name]: patterns[name] } }));
  WIDGETS.attention(host, { ...given, prompts: own });
}
