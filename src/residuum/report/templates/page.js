"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function remembered() {
    try { return localStorage.getItem("residuum-theme"); } catch { return null; }
  }
  function remember(theme) {
    try { localStorage.setItem("residuum-theme", theme); } catch { /* a file from a disk may have no storage */ }
  }
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";

  function prepareTheme() {
    const button = document.querySelector(".theme");
    const name = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remember(root.dataset.theme);
      name();
    });
    dark.addEventListener("change", name);
    name();
    button.hidden = false;
  }

  // Words beside the cell that is pointed at or has the focus; its row and column stand out. Arrow keys move the focus.
  function prepareMatrix(box) {
    const head = box.querySelector("thead tr").cells;
    const rows = [...box.querySelectorAll("tbody tr")];
    const tip = box.querySelector(".tip");
    let current = null;
    let marked = [];

    function leave() {
      for (const cell of marked) cell.classList.remove("on", "at");
      marked = [];
      current = null;
      tip.hidden = true;
    }
    function enter(cell) {
      leave();
      current = cell;
      const row = cell.parentNode;
      const column = cell.cellIndex;
      marked = [...row.cells, ...rows.map((other) => other.cells[column]), head[column]];
      for (const other of marked) other.classList.add("on");
      cell.classList.add("at");
      tip.replaceChildren(...words(cell, row, head[column]));
      tip.hidden = false;
      place();
    }
    function words(cell, row, column) {
      const count = Number(cell.textContent);
      const total = Number(row.dataset.total);
      const share = total ? ` (${(100 * count / total).toFixed(2)} %)` : "";
      return [
        `${box.dataset.row} `, named(row.cells[0]), `, ${box.dataset.column} `, named(column),
        `\n${count.toLocaleString("en")} of ${total.toLocaleString("en")}${share}`,
      ];
    }
    function named(cell) {
      const name = document.createElement("bdi");
      name.textContent = cell.textContent;
      return name;
    }
    function place() {
      if (!current) return;
      const at = current.getBoundingClientRect();
      const left = at.left + at.width / 2 - tip.offsetWidth / 2;
      const above = at.top - tip.offsetHeight - 6;
      tip.style.left = `${Math.max(8, Math.min(left, root.clientWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${above > 8 ? above : at.bottom + 6}px`;
    }
    function move(cell, event) {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const row = step && rows[rows.indexOf(cell.parentNode) + step[0]];
      const next = row && row.cells[cell.cellIndex + step[1]];
      if (!next || next.tagName !== "TD") return;
      event.preventDefault();
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
    const onCell = (action) => (event) => {
      const cell = event.target.closest("tbody td");
      if (cell) action(cell, event); else leave();
    };
    if (rows.length) rows[0].cells[1].tabIndex = 0;
    box.addEventListener("mouseover", onCell(enter));
    box.addEventListener("mouseleave", leave);
    box.addEventListener("focusin", onCell(enter));
    box.addEventListener("focusout", leave);
    box.addEventListener("keydown", onCell(move));
    addEventListener("scroll", place, { passive: true, capture: true });
  }

  // An edge behind which there is more casts a shadow.
  function prepareFrame(frame) {
    const box = frame.firstElementChild;
    function look() {
      const right = box.scrollWidth - box.clientWidth - box.scrollLeft;
      const below = box.scrollHeight - box.clientHeight - box.scrollTop;
      frame.classList.toggle("more-right", right > 1);
      frame.classList.toggle("more-below", below > 1);
    }
    box.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(box);
    look();
  }

  const theme = remembered();
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;
  addEventListener("DOMContentLoaded", () => {
    prepareTheme();
    document.querySelectorAll(".matrix").forEach(prepareMatrix);
    document.querySelectorAll(".frame").forEach(prepareFrame);
  });
})();
