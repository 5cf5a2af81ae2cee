// The page's own controls: the theme, and the bar that says where the reader is.
const THEMES = { auto: "light", light: "dark", dark: "auto" };
const bar = document.querySelector("nav");
const button = el("button", { type: "button", class: "theme" }, "Theme: auto");

button.addEventListener("click", () => {
  const root = document.documentElement;
  const next = THEMES[root.dataset.theme ?? "auto"];
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  button.textContent = `Theme: ${next}`;
});
bar.append(button);

// In a notebook's frame an address with a hash would lead out of the frame: walk there instead.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href^='#']");
  if (!link || location.href !== "about:srcdoc") return;
  event.preventDefault();
  const goal = document.getElementById(link.getAttribute("href").slice(1));
  goal.scrollIntoView();
  goal.focus({ preventScroll: true });
});

const links = new Map([...bar.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver(
  (entries) => {
    const here = entries.filter((entry) => entry.isIntersecting).at(-1);
    if (!here) return;
    for (const [id, link] of links) {
      if (id === here.target.id) link.setAttribute("aria-current", "location");
      else link.removeAttribute("aria-current");
    }
    const list = bar.querySelector(".places"); // no scrollIntoView: it would move the page too
    const { offsetLeft, offsetWidth } = links.get(here.target.id);
    list.scrollLeft = offsetLeft - (list.clientWidth - offsetWidth) / 2;
  },
  { rootMargin: "-20% 0px -75% 0px" }, // a line near the top of the window
);
for (const id of links.keys()) seen.observe(document.getElementById(id));
