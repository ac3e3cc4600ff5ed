// The page: theme, contents, printing, and when a plot is drawn.

const dark = matchMedia("(prefers-color-scheme: dark)");
const plots = [];

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : dark.matches;
}

function nameTheme() {
  const button = document.getElementById("theme");
  button.textContent = isDark() ? "Light" : "Dark";
  button.setAttribute("aria-label", `${button.textContent} theme`);
}

function drawAll() {
  nameTheme();
  for (const plot of plots) if (plot.isDrawn) plot.draw();
}

// A plot is drawn when it comes near: a report may have many.
function followPlots() {
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const plot = plots.find((item) => item.element === entry.target);
      if (entry.isIntersecting && !plot.isDrawn) plot.draw();
    }
  }, { rootMargin: "50% 0px" });
  for (const plot of plots) observer.observe(plot.element);
}

function followTheme() {
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    drawAll();
  });
  dark.addEventListener("change", drawAll);
}

// Paper is white, and shows what is folded.
function followPrinting() {
  let before;
  window.addEventListener("beforeprint", () => {
    const folded = Array.from(document.querySelectorAll("details:not([open])"));
    before = { theme: document.documentElement.dataset.theme, folded };
    for (const item of folded) item.open = true;
    document.documentElement.dataset.theme = "light";
    document.documentElement.dataset.printing = "true";
    for (const plot of plots) plot.draw();
  });
  window.addEventListener("afterprint", () => {
    delete document.documentElement.dataset.printing;
    for (const item of before.folded) item.open = false;
    if (before.theme) document.documentElement.dataset.theme = before.theme;
    else delete document.documentElement.dataset.theme;
    drawAll();
  });
}

function followScrolling() {
  const links = new Map(Array.from(document.querySelectorAll(".contents a"), (link) => [link.hash.slice(1), link]));
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const [anchor, link] of links) {
        if (anchor === entry.target.id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }
  }, { rootMargin: "-10% 0px -75% 0px" });
  for (const section of document.querySelectorAll("main > section")) observer.observe(section);
}

async function start() {
  document.body.append(probe);
  for (const element of document.querySelectorAll("[data-photo]")) new PhotoBlock(element);
  followScrolling();
  try {
    await loadPlotly();
    for (const element of document.querySelectorAll("[data-plot]")) plots.push(new PlotBlock(element));
    followTheme();
    nameTheme();
    followPlots();
    followPrinting();
  } catch (error) {
    const problem = document.getElementById("problem");
    problem.textContent = `The plots could not be drawn (${error.message}); the numbers are in the tables below.`;
    problem.hidden = false;
  }
  document.documentElement.dataset.ready = "true";
}

start();
