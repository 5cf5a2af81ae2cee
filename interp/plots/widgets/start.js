for (const host of document.querySelectorAll(".widget")) {
  const data = dataOf(host);
  DRAWN.set(host, WIDGETS[host.classList[1]](host, data));
  if (!host.matches(".alone > .widget")) continue; // a report has a menu of its own
  const title = host.getAttribute("aria-label");
  const drawn = () => picture(title, host, [DRAWN.get(host).toSvg()]);
  const files = { svg: () => svgBlob(drawn()), png: () => pngBlob(drawn()), json: () => jsonBlob(data) };
  host.before(saveMenu(title, files));
}
