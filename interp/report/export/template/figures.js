// A menu on every figure that saves it as it is shown, and its numbers.
for (const figure of document.querySelectorAll("figure")) {
  const title = figure.querySelector(".figure-title").textContent;
  const name = `${figure.closest(".block").querySelector("h3").textContent}, ${title}`;
  const host = figure.querySelector(".widget");
  const values = document.getElementById(figure.dataset.values)?.querySelector("table");
  const drawn = () => {
    const main = host ? DRAWN.get(host).toSvg() : figure.querySelector(".drawing > svg");
    return picture(name, host ?? figure, [main, ...figure.querySelectorAll(".key svg")]);
  };
  const data = () => ({
    report: document.title,
    figure: name,
    ...(values && tableData(values)),
    ...(host && { data: dataOf(host) }),
  });
  const files = { svg: () => svgBlob(drawn()), png: () => pngBlob(drawn()) };
  if (values) files.csv = () => csvBlob(tableData(values));
  if (values || host) files.json = () => jsonBlob(data());
  figure.querySelector(".figure-head").append(saveMenu(name, files));
}
