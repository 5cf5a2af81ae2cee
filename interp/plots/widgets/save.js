// Saves what is shown: a drawing as SVG or PNG that needs no style sheet, its numbers as CSV or JSON.
const PAINT = {
  "fill": "rgb(0, 0, 0)", "fill-opacity": "1", "stroke": "none", "stroke-width": "1px",
  "stroke-opacity": "1", "stroke-dasharray": "none", "stroke-linecap": "butt",
  "stroke-linejoin": "miter", "opacity": "1",
}; // and the value that needs no saying
const LETTERS = ["font-family", "font-size", "font-weight", "font-style", "text-anchor"];
const MARGIN = 16;

// A small menu: one button a file ending, whose function gives what the file holds.
function saveMenu(name, files) {
  const opener = el("summary", { "aria-label": `Save ${name}` }, "Save");
  const menu = el("details", { class: "save" }, opener);
  for (const [ending, content] of Object.entries(files)) {
    const button = el("button", { type: "button" }, ending.toUpperCase());
    button.addEventListener("click", async () => download(await content(), fileName(name, ending)));
    menu.append(button);
  }
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    opener.focus();
  });
  return menu;
}

function download(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

// Letters and digits of any script; all else becomes a dash.
function fileName(name, ending) {
  const words = name.toLowerCase().match(/[\p{L}\p{N}]+/gu) || ["figure"];
  return `${words.join("-").slice(0, 80)}.${ending}`;
}

// What a cell of a table holds: an exact number, words, or null where there is nothing.
function held(cell) {
  if (cell.dataset.value) return Number(cell.dataset.value);
  return cell.textContent.trim() || null;
}

function tableData(table) {
  const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].map(held));
  return { columns: [...table.tHead.rows[0].cells].map((cell) => cell.textContent), rows };
}

const svgBlob = (picture) => new Blob([svgText(picture)], { type: "image/svg+xml" });
const jsonBlob = (value) => new Blob([JSON.stringify(value, null, 1)], { type: "application/json" });

function pngBlob(picture) {
  const { width, height } = sizeOf(picture);
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => {
      const canvas = el("canvas", { width: 2 * width, height: 2 * height });
      canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
      canvas.toBlob(resolve, "image/png");
    };
    image.onerror = () => reject(new Error("This browser cannot paint the drawing; save it as SVG."));
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svgText(picture));
  });
}

// Numbers are exact. Words that a spreadsheet would run as a formula begin with an apostrophe.
function csvBlob({ columns, rows }) {
  const field = (value) => {
    if (value === null) return "";
    if (typeof value === "number") return String(value);
    const words = /^[=+\-@\t\r]./s.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
  };
  const lines = [columns, ...rows].map((row) => row.map(field).join(","));
  return new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv;charset=utf-8" });
}

function svgText(picture) {
  const text = new XMLSerializer().serializeToString(picture).toWellFormed();
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, ""); // not in XML
}

// One picture of several drawings under a title, on the ground that is shown.
function picture(title, host, drawings) {
  const styles = getComputedStyle(host.closest(".block, body"));
  const sizes = drawings.map(sizeOf);
  const width = Math.max(...sizes.map((size) => size.width), 8 * title.length) + 2 * MARGIN;
  const words = { x: MARGIN, y: 30, fill: styles.color, "font-family": styles.fontFamily };
  const parts = [shape("text", { ...words, "font-size": 14, "font-weight": 600 }, title)];
  let y = 46;
  drawings.forEach((drawing, i) => {
    parts.push(filled(painted(drawing, host), { x: MARGIN, y, ...sizes[i] }, []));
    y += sizes[i].height + MARGIN;
  });
  const ground = shape("rect", { width: "100%", height: "100%", fill: styles.backgroundColor });
  return shape("svg", { width, height: y, viewBox: `0 0 ${width} ${y}` }, ground, ...parts);
}

function sizeOf(drawing) {
  const size = (name) => Math.ceil(drawing.viewBox.baseVal?.[name] || drawing[name].baseVal.value);
  return { width: size("width"), height: size("height") };
}

// A copy in which every shape carries the paint that the page's classes give it, and its tip.
function painted(drawing, host) {
  const shelf = el("div", { class: "shelf" }); // what no page holds has no style
  if (!drawing.isConnected) {
    shelf.append(drawing);
    host.append(shelf);
  }
  const copy = drawing.cloneNode(true);
  const copies = copy.querySelectorAll("*");
  [...drawing.querySelectorAll("*")].forEach((node, i) => paint(node, copies[i]));
  paint(drawing, copy);
  shelf.remove();
  return copy;
}

function paint(node, copy) {
  const styles = getComputedStyle(node);
  if (styles.display === "none") return copy.remove();
  for (const [name, usual] of Object.entries(PAINT)) {
    const value = styles.getPropertyValue(name);
    if (value !== usual) copy.setAttribute(name, value);
  }
  if (node.localName === "text") {
    for (const name of LETTERS) copy.setAttribute(name, styles.getPropertyValue(name));
  }
  if (node.dataset.tip) copy.append(shape("title", {}, node.dataset.tip));
  for (const { name } of [...copy.attributes]) {
    if (/^(class|role|style|tabindex|id|data-.*|aria-.*)$/.test(name)) copy.removeAttribute(name);
  }
}
