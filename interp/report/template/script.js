"use strict";
// The words of the cell under the pointer, in one box that follows it.
const tip = document.getElementById("tip");

function show(event) {
  const words = event.target.getAttribute && event.target.getAttribute("data-tip");
  tip.hidden = !words;
  if (!words) return;
  tip.textContent = words;
  const cell = event.target.getBoundingClientRect();
  const left = cell.left + cell.width / 2 - tip.offsetWidth / 2;
  const above = cell.top - tip.offsetHeight - 8;
  tip.style.left = Math.max(8, Math.min(left, window.innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = (above > 8 ? above : cell.bottom + 8) + "px";
}

document.addEventListener("pointerover", show);
document.addEventListener("pointerdown", show);
document.addEventListener("scroll", () => { tip.hidden = true; }, true);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
