"use strict";
(() => {
  const TOP = 5;
  const AT_ONCE = 2; // requests under way: more would only wait in the server
  const ATTEMPTS = 5; // at a busy server
  const TINY = 64; // pixels, up to which an image is enlarged
  const INFERNO = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]];
  const MEBIBYTE = 2 ** 20;

  const one = (selector, within = document) => within.querySelector(selector);
  const root = document.documentElement;
  const status = one(".status");
  const chooser = one("#model");
  const strength = one("#strength");
  const waiting = [];
  let models = [];
  let limits = null;
  let running = 0;
  let key = remembered(sessionStorage, "residuum-key");

  function remembered(storage, name) {
    try { return storage.getItem(name); } catch { return null; }
  }
  function remember(storage, name, value) {
    try { storage.setItem(name, value); } catch { /* a browser may allow no storage */ }
  }
  const say = (text) => { status.textContent = text; };
  const pause = (seconds) => new Promise((go) => setTimeout(go, 1000 * seconds));
  const inWords = (milliseconds) => `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  function prepareTheme() {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const button = one(".theme");
    const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
    const name = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
    const known = remembered(localStorage, "residuum-theme");
    if (known) root.dataset.theme = known;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remember(localStorage, "residuum-theme", root.dataset.theme);
      name();
    });
    dark.addEventListener("change", name);
    name();
    button.hidden = false;
  }

  // Asking the server

  async function ask(path, options = {}) {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Error("The server cannot be reached; is it still running?");
    }
    const body = await response.json().catch(() => ({}));
    if (response.ok) return body;
    if (response.status === 401) askForKey();
    const error = new Error(sentence(body.detail || `The server answered ${response.status}; try again`));
    error.status = response.status;
    error.wait = Number(response.headers.get("Retry-After")) || 1;
    throw error;
  }

  const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

  async function patiently(card, work) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work();
      } catch (error) {
        if (error.status !== 429 || attempt === ATTEMPTS) throw error;
        message(card, `The server is busy; asking again in ${error.wait} s.`);
        await pause(error.wait);
      }
    }
  }

  function askForKey() {
    one(".key").hidden = false;
    one("#key").focus();
  }

  // The models

  async function loadModels() {
    try {
      ({ models, limits } = await ask("models"));
    } catch (error) {
      say(error.message);
      return;
    }
    one(".key").hidden = true;
    const chosen = chooser.value;
    chooser.replaceChildren(...models.map((model) => new Option(model.name, model.name, false, model.name === chosen)));
    one(".models").hidden = models.length < 2;
    const pixels = Math.round(limits.pixels / 1e6);
    one(".limits").textContent = `Up to ${Math.floor(limits.body_bytes / MEBIBYTE)} MiB and ${pixels} megapixels each.`;
    showModel();
    say("");
  }

  const current = () => models.find((model) => model.name === chooser.value) || models[0];

  function showModel() {
    const model = current();
    if (!model) return;
    const rows = {
      name: model.name,
      network: model.architecture,
      classes: classesInWords(model.classes),
      "computed by": model.engine,
      sees: squareInWords(model.preprocessing),
      ...model.card,
    };
    const list = one(".card-of-model dl");
    list.replaceChildren(...Object.entries(rows).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
    one(".card-of-model").hidden = false;
    one(".strength").hidden = !model.maps;
    one(".without-maps").hidden = model.maps;
  }

  function classesInWords(classes) {
    const few = classes.slice(0, 12).join(", ");
    return classes.length > 12 ? `${classes.length}: ${few}, …` : `${classes.length}: ${few}`;
  }

  function squareInWords({ input_size: [channels, height, width], seen }) {
    const share = seen < 1 ? ` of ${Math.round(100 * seen)} % of the shorter side` : "";
    return `the middle square${share}, as ${width} x ${height} pixels in ${channels === 1 ? "grey" : "colour"}`;
  }

  function element(name, text) {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  // Images

  function add(files) {
    const images = [...files];
    if (!images.length) return;
    one(".results").hidden = false;
    const cards = images.map((file) => [file, newCard(file)]);
    one(".cards").prepend(...cards.map(([, card]) => card));
    waiting.push(...cards.map(([file, card]) => () => classify(file, card)));
    say(images.length === 1 ? "Classifying one image." : `Classifying ${images.length} images.`);
    advance();
  }

  async function advance() {
    if (running >= AT_ONCE || !waiting.length) return;
    running += 1;
    const work = waiting.shift();
    advance();
    try { await work(); } finally { running -= 1; }
    advance();
  }

  function newCard(file) {
    const card = one("#card").content.firstElementChild.cloneNode(true);
    const image = one("img", card);
    const name = file.name || "pasted image";
    card.setAttribute("aria-label", name);
    one("figcaption", card).textContent = name;
    image.alt = name;
    image.addEventListener("load", () => {
      one(".picture", card).classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= TINY);
    });
    image.addEventListener("error", () => {
      const picture = one(".picture", card);
      picture.classList.add("unseen");
      picture.replaceChildren("This browser cannot show this file.");
    });
    image.src = URL.createObjectURL(file);
    return card;
  }

  async function classify(file, card) {
    const model = current();
    message(card, "Classifying.");
    try {
      if (limits && file.size > limits.body_bytes) throw new Error(`This file is larger than ${Math.floor(limits.body_bytes / MEBIBYTE)} MiB; make it smaller.`);
      const query = new URLSearchParams({ top: TOP, maps: Boolean(model?.maps) });
      if (model) query.set("model", model.name);
      const body = await file.arrayBuffer();
      const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
      const answer = await patiently(card, () => ask(`predict?${query}`, { method: "POST", body: new Blob([body], { type }) }));
      showAnswer(card, answer, model);
    } catch (error) {
      card.classList.add("bad");
      message(card, error.message);
      say(`${card.getAttribute("aria-label")}: ${error.message}`);
    }
  }

  function message(card, text) {
    const place = one(".message", card);
    place.textContent = text;
    place.hidden = !text;
  }

  // Answers

  function showAnswer(card, answer, model) {
    const { classes, timing } = answer.images[0];
    message(card, "");
    const list = one(".classes", card);
    list.replaceChildren(...classes.map((found) => classItem(card, found, model)));
    list.setAttribute("aria-label", `Classes of ${card.getAttribute("aria-label")}, most probable first`);
    list.hidden = false;
    one(".timing", card).textContent = `${models.length > 1 ? `${answer.model}. ` : ""}Decoded in ${inWords(timing.decode_ms)}, computed in ${inWords(timing.compute_ms)}, answered after ${inWords(answer.timing.total_ms)}.`;
    const [best] = classes;
    if (best.map) one("button", list).click();
    say(`${card.getAttribute("aria-label")}: ${best.label}, ${percent(best.probability)}.`);
  }

  function classItem(card, found, model) {
    const item = one("#class").content.firstElementChild.cloneNode(true);
    const button = one("button", item);
    one(".label", item).textContent = found.label;
    one(".probability", item).textContent = percent(found.probability);
    one(".bar span", item).style.width = `${100 * found.probability}%`;
    button.disabled = !found.map;
    if (found.map) {
      button.title = "Show what speaks for this class";
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        for (const other of card.querySelectorAll(".classes button")) other.setAttribute("aria-pressed", String(other === button));
        showMap(card, found.map, model.preprocessing.seen);
      });
    }
    return item;
  }

  // The map lies on the square that the model saw: the middle `seen` of the shorter side.
  async function showMap(card, map, seen) {
    const image = one("img", card);
    const place = one(".map", card);
    if (!image || !place) return;
    await image.decode().catch(() => {});
    const { naturalWidth: width, naturalHeight: height } = image;
    if (!width || !height) return;
    const side = seen * Math.min(width, height);
    place.style.width = `${100 * side / width}%`;
    place.style.height = `${100 * side / height}%`;
    place.style.left = `${50 - 50 * side / width}%`;
    place.style.top = `${50 - 50 * side / height}%`;
    paint(one("canvas", place), map);
    place.hidden = false;
  }

  function paint(canvas, map) {
    const largest = Math.max(...map.flat(), Number.MIN_VALUE);
    const small = document.createElement("canvas");
    [small.width, small.height] = [map[0].length, map.length];
    const pixels = new ImageData(small.width, small.height);
    map.flat().forEach((value, place) => pixels.data.set(colour(Math.max(0, value) / largest), 4 * place));
    small.getContext("2d").putImageData(pixels, 0, 0);
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }

  // Cold is clear, hot covers: red, green, blue, and how much of it.
  function colour(heat) {
    const place = heat * (INFERNO.length - 1);
    const from = INFERNO[Math.floor(place)];
    const to = INFERNO[Math.ceil(place)];
    const mixed = from.map((value, channel) => value + (to[channel] - value) * (place % 1));
    return [...mixed, 255 * heat];
  }

  function setStrength() {
    one("output").textContent = `${strength.value} %`;
    one(".cards").style.setProperty("--strength", strength.value / 100);
  }

  function clear() {
    waiting.length = 0;
    for (const image of document.querySelectorAll(".card img")) URL.revokeObjectURL(image.src);
    one(".cards").replaceChildren();
    one(".results").hidden = true;
    say("The results are cleared.");
    one("#files").focus();
  }

  function prepareInputs() {
    for (const input of document.querySelectorAll("input[type=file]")) {
      input.addEventListener("change", () => { add(input.files); input.value = ""; });
    }
    one(".by-camera").hidden = !navigator.maxTouchPoints; // elsewhere it would open files, too
    const drop = one(".drop");
    addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
    addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); add(event.dataTransfer.files); });
    addEventListener("paste", (event) => add(event.clipboardData.files));
    chooser.addEventListener("change", showModel);
    strength.addEventListener("input", setStrength);
    one(".clear").addEventListener("click", clear);
    one(".key").addEventListener("submit", (event) => {
      event.preventDefault();
      key = one("#key").value;
      remember(sessionStorage, "residuum-key", key);
      loadModels();
    });
  }

  prepareTheme();
  prepareInputs();
  setStrength();
  loadModels();
})();
