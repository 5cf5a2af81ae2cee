// The words of a mark in a drawing, in one box: under the pointer, or under the arrow keys.
const tip = document.getElementById("tip");
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const ROWS = new WeakMap();
let walked = null; // the mark that the arrow keys have reached

function hide() {
  tip.hidden = true;
  walked = null;
}

function tell(mark) {
  const words = mark.getAttribute && mark.getAttribute("data-tip");
  tip.hidden = !words;
  if (!words) return;
  tip.textContent = words;
  const box = mark.getBoundingClientRect();
  const left = box.left + box.width / 2 - tip.offsetWidth / 2;
  const above = box.top - tip.offsetHeight - 8;
  tip.style.left = Math.max(8, Math.min(left, window.innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = (above > 8 ? above : box.bottom + 8) + "px";
}

// The marks of a drawing as rows from top to bottom, each from left to right.
function rowsOf(drawing) {
  if (ROWS.has(drawing)) return ROWS.get(drawing);
  const places = [...drawing.querySelectorAll("[data-tip]")].map((mark) => {
    const box = mark.getBBox();
    return { mark, x: box.x + box.width / 2, y: Math.round(box.y + box.height / 2) };
  });
  const rows = Map.groupBy(places.sort((a, b) => a.y - b.y || a.x - b.x), (place) => place.y);
  ROWS.set(drawing, [...rows.values()]);
  return ROWS.get(drawing);
}

// The mark one step from the one where the reader stands; rows of one mark are walked either way.
function step(rows, at, [across, down]) {
  if (!at) return rows[0][0];
  const y = rows.findIndex((row) => row.some((place) => place.mark === at));
  const row = rows[y];
  const x = row.findIndex((place) => place.mark === at);
  const next = rows[y + (down || (row.length === 1 ? across : 0))] || row;
  if (next === row) return row[x + (across || (rows.length === 1 ? down : 0))] || row[x];
  const distance = (place) => Math.abs(place.x - row[x].x);
  return next.reduce((best, place) => (distance(place) < distance(best) ? place : best));
}

function walk(event) {
  const drawing = event.target;
  if (!(event.key in ARROWS) || !drawing.matches("svg[tabindex]")) return;
  event.preventDefault();
  const at = drawing.querySelector(".at");
  const { mark } = step(rowsOf(drawing), at, ARROWS[event.key]);
  if (at) at.classList.remove("at");
  mark.classList.add("at");
  mark.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
  walked = mark;
  tell(mark);
}

for (const drawing of document.querySelectorAll("figure svg:has([data-tip])")) {
  drawing.setAttribute("tabindex", "0");
  drawing.setAttribute("role", "application"); // so that a screen reader lets the arrow keys through
  drawing.setAttribute("aria-roledescription", "drawing, walked with the arrow keys");
  drawing.addEventListener("blur", hide);
}
document.addEventListener("pointerover", (event) => tell(event.target));
document.addEventListener("pointerdown", (event) => tell(event.target));
document.addEventListener("scroll", () => (walked ? tell(walked) : hide()), true);
document.addEventListener("keydown", walk);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
