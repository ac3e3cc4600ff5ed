// The photograph: walk through the query tokens and see the patches that each of them sees.

class PhotoBlock {
  constructor(element) {
    this.element = element;
    Object.assign(this, JSON.parse(element.querySelector("script").textContent));
    this.slider = element.querySelector("input[type=range]");
    this.slider.addEventListener("input", () => this.show());
    for (const button of element.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => {
        this.slider.value = Number(this.slider.value) + Number(button.dataset.step);
        this.show();
      });
    }
    const tinted = element.querySelector(".tinted");
    element.querySelector("input[type=checkbox]").addEventListener("change", (event) => {
      tinted.hidden = !event.target.checked;
      element.querySelector(".plain").hidden = event.target.checked;
    });
    element.querySelector(".view").addEventListener("click", (event) => this.pick(event));
    this.show();
  }

  pick(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.owners.length);
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.owners[0].length);
    const owner = this.owners[row]?.[column];
    if (owner === undefined) return;
    this.slider.value = owner;
    this.show();
  }

  patches(token) {
    const found = [];
    this.owners.forEach((line, row) => line.forEach((owner, column) => {
      if (owner === token) found.push([row, column]);
    }));
    return found;
  }

  show() {
    const token = Number(this.slider.value);
    const isPartial = token < this.numPartial;
    const [rows, columns] = [this.owners.length, this.owners[0].length];
    const cells = isPartial ? this.patches(token) : [];
    const squares = cells.map(([row, column]) => `M${column} ${row}h1v1h-1z`).join("");
    const outside = isPartial ? `M0 0h${columns}v${rows}h${-columns}z` : "";
    this.element.querySelector(".veil").setAttribute("d", outside + squares);
    this.element.querySelector(".edge").setAttribute("d", squares);
    const text = isPartial ? this.describe(token, cells) : this.describeGlobal(token, rows * columns);
    this.element.querySelector("output").textContent = token;
    this.element.querySelector(".readout").textContent = text;
    this.slider.setAttribute("aria-valuetext", `${token}: ${text}`);
    this.drawStrips(token, isPartial);
  }

  describe(token, cells) {
    const byRow = new Map();
    for (const [row, column] of cells) {
      if (!byRow.has(row)) byRow.set(row, []);
      byRow.get(row).push(column);
    }
    const lines = Array.from(byRow, ([row, found]) =>
      `row ${row}, ${found.length > 1 ? `columns ${found[0]} to ${found.at(-1)}` : `column ${found[0]}`}`);
    const shown = lines.length > 4 ? [...lines.slice(0, 3), `${lines.length - 3} more rows`] : lines;
    const total = this.owners.length * this.owners[0].length;
    return `Partial token ${token} of ${this.numPartial} sees ${cells.length} of ${total} patches: ${shown.join("; ")}.`;
  }

  describeGlobal(token, total) {
    return `Global token ${token - this.numPartial} of ${this.numGlobal} sees all ${total} patches.`;
  }

  drawStrips(token, isPartial) {
    const count = this.numPartial + this.numGlobal;
    const strips = this.attends.map(([layers, window]) => {
      const half = window === null ? count : Math.floor(window / 2);
      const from = isPartial ? Math.max(0, token - half) : this.numPartial;
      const to = isPartial ? Math.min(this.numPartial, token + half + 1) : count;
      const kind = isPartial ? "partial" : "global";
      const box = document.createElement("div");
      const title = document.createElement("p");
      title.textContent = `Self-attention, ${layers}: sees ${kind} tokens ${from} to ${to - 1}`;
      const space = "http://www.w3.org/2000/svg";
      const svg = document.createElementNS(space, "svg");
      svg.setAttribute("viewBox", `0 0 ${count} 1`);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("class", "strip");
      svg.setAttribute("aria-hidden", "true");
      const mark = Math.max(1, count / 120); // one of 304 tokens would be less than a pixel on a phone
      for (const [name, start, width] of [["cell", 0, count], [kind, from, to - from], ["self", token + 0.5 - mark / 2, mark]]) {
        const part = document.createElementNS(space, "rect");
        part.setAttribute("class", name);
        part.setAttribute("x", start);
        part.setAttribute("width", width);
        part.setAttribute("height", 1);
        svg.append(part);
      }
      box.append(title, svg);
      return box;
    });
    this.element.querySelector(".strips").replaceChildren(...strips);
  }
}
