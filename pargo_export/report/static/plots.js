"use strict";
// Plots: unpack plotly.js, draw each view in the colours of the theme, follow choices and legend.

const probe = document.createElement("span");
probe.hidden = true;

// Figures name colours as var(--name), so that one figure serves both themes; plotly.js wants real ones.
function resolveColors(value, cache) {
  if (typeof value === "string") {
    if (!value.startsWith("var(--")) return value === "inherit" ? getComputedStyle(document.body).fontFamily : value;
    if (!(value in cache)) {
      probe.style.color = value;
      cache[value] = getComputedStyle(probe).color;
    }
    return cache[value];
  }
  if (Array.isArray(value)) return value.map((item) => resolveColors(item, cache));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolveColors(item, cache)]));
  }
  return value;
}

async function loadPlotly() {
  const packed = atob(document.getElementById("plotly").textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  if (!window.Plotly) throw new Error("plotly.js did not start");
}

class PlotBlock {
  constructor(element) {
    this.element = element;
    this.canvas = element.querySelector(".canvas");
    this.views = JSON.parse(element.querySelector("script").textContent).views;
    this.hidden = new Set();
    this.isDrawn = false;
    for (const select of element.querySelectorAll(".controls select")) {
      select.addEventListener("change", () => this.draw());
    }
    for (const button of element.querySelectorAll(".legend button")) {
      button.addEventListener("click", () => this.toggle(button));
    }
  }

  toggle(button) {
    const isShown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(isShown));
    if (isShown) this.hidden.delete(button.dataset.group);
    else this.hidden.add(button.dataset.group);
    this.draw();
  }

  key() {
    const chosen = this.element.querySelectorAll(".controls select, .controls [data-value]");
    return Array.from(chosen, (item) => (item.matches("select") ? item.value : item.textContent)).join("|");
  }

  draw() {
    this.isDrawn = true;
    const view = this.views[this.key()];
    if (!view) {
      window.Plotly.purge(this.canvas);
      const text = document.createElement("p");
      text.className = "absent";
      text.textContent = "This combination was not measured.";
      this.canvas.replaceChildren(text);
      this.canvas.setAttribute("aria-label", text.textContent);
      this.canvas.style.minHeight = "0";
      return;
    }
    if (this.canvas.querySelector(".absent")) this.canvas.replaceChildren();
    // plotly.js keeps the width that it once found.
    if (this.width !== this.canvas.clientWidth) window.Plotly.purge(this.canvas);
    this.width = this.canvas.clientWidth;
    const figure = resolveColors(view.figure, {});
    for (const trace of figure.data) {
      if (trace.type === "heatmap" && this.canvas.clientWidth / trace.x.length < 90) trace.texttemplate = "";
      if (this.hidden.has(trace.legendgroup)) trace.visible = false;
    }
    this.canvas.style.minHeight = `${figure.layout.height}px`;
    this.canvas.setAttribute("aria-label", view.alt);
    const config = { displayModeBar: false, responsive: true, doubleClick: false };
    return window.Plotly.react(this.canvas, figure.data, figure.layout, config);
  }
}
