// Tables that sort by a click on a column's name; long ones show the rows that hold given words.
const NATURAL = new Intl.Collator("en", { numeric: true });
const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
const LONG = 8;

// Numbers by size, before words; words as people order them, so that 5.2 stands before 5.10.
function order(a, b) {
  if (typeof a === "number" || typeof b === "number") {
    if (typeof a === typeof b) return a - b;
    return typeof a === "number" ? -1 : 1;
  }
  const [minusA, minusB] = [a, b].map((words) => /^[\u2212-][\d.]/.test(words));
  if (minusA !== minusB) return minusA ? -1 : 1;
  const [plainA, plainB] = [a, b].map((words) => words.replace(/^[\u2212+-]/, ""));
  return minusA ? NATURAL.compare(plainB, plainA) : NATURAL.compare(plainA, plainB);
}

// Up, then down, then as it was; what is missing stands last either way.
function sortBy(table, heads, column, asWas) {
  const wanted = NEXT[heads[column].getAttribute("aria-sort") ?? "none"];
  for (const head of heads) head.removeAttribute("aria-sort");
  if (wanted !== "none") heads[column].setAttribute("aria-sort", wanted);
  const sorted = document.createDocumentFragment();
  sorted.append(...(wanted === "none" ? asWas : ordered(asWas, column, wanted === "ascending" ? 1 : -1)));
  table.tBodies[0].append(sorted);
}

function ordered(rows, column, sign) {
  const keyed = rows.map((row) => [held(row.cells[column]), row]);
  const known = keyed.filter(([key]) => key !== null).sort(([a], [b]) => sign * order(a, b));
  return [...known, ...keyed.filter(([key]) => key === null)].map(([, row]) => row);
}

// A box above the table, and a count that a screen reader says.
function filter(table, rows) {
  const caption = table.caption.textContent;
  const count = el("output", {}, `${rows.length} rows`);
  const box = el("input", { type: "search", placeholder: "Filter rows", "aria-label": `Filter rows of ${caption}` });
  const words = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
  box.addEventListener("input", () => {
    const wanted = box.value.toLowerCase().split(/\s+/);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !wanted.every((word) => words[i].includes(word));
      shown += !row.hidden;
    });
    count.textContent = `${shown} of ${rows.length}`;
  });
  return el("div", { class: "tools" }, box, count);
}

function prepare(table) {
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  heads.forEach((head, column) => {
    const button = el("button", { type: "button" }, ...head.childNodes);
    button.addEventListener("click", () => sortBy(table, heads, column, rows));
    head.append(button);
  });
  if (rows.length > LONG) table.parentElement.before(filter(table, rows));
}

for (const table of document.querySelectorAll("table")) {
  const fold = table.closest("details"); // folded ones are made ready when they are opened
  if (fold && !fold.open) fold.addEventListener("toggle", () => prepare(table), { once: true });
  else prepare(table);
}
