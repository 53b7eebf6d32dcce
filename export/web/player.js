// Plays samples through networks that `snukeras-export MODEL --target web` wrote.
//
//   <div data-snu-player data-networks="folder"></div>
//   <script type="module" src="player.js"></script>
//
// data-networks lists folders of networks, which get the same samples; data-titles what they are
// called, divided by "|"; data-runtime is the folder of onnxruntime-web, by default that of the first
// network; with data-start they are loaded at once, else when Play is pressed. A page of its own takes
// `Network` alone:
//
//   import { Network } from "./player.js";
//   const network = await Network.open("folder");
//   network.start(0);                                  // the first sample
//   for (let now; (now = await network.next()); ) console.log(now.outputs, now.layers);

const RUNTIME = "ort.wasm.bundle.min.mjs";
const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, int16: Int16Array, int32: Int32Array,
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int64: BigInt64Array,
  uint64: BigUint64Array, bool: Uint8Array,
};
const NOTES = ["C", "C\u266f", "D", "D\u266f", "E", "F", "F\u266f", "G", "G\u266f", "A", "A\u266f", "B"];
const LOWEST = 21; // the key 0 of a piano, A0, as MIDI counts

const product = (sizes) => sizes.reduce((a, b) => a * b, 1);
const folderURL = (folder) => new URL(folder.endsWith("/") ? folder : `${folder}/`, document.baseURI);

/** The array of an entry of network.json: {shape, type, data}. */
function unpack(entry) {
  const bytes = Uint8Array.from(atob(entry.data), (sign) => sign.charCodeAt(0));
  return { shape: entry.shape, values: new ARRAYS[entry.type](bytes.buffer) };
}

async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url.pathname} cannot be read (${response.status})`);
  return response;
}

/** A network: what its folder says of it, and a session of ONNX Runtime that runs it. */
export class Network {
  /** Open the network of a folder; `runtime` is the folder of onnxruntime-web. */
  static async open(folder, runtime = folder) {
    const base = folderURL(folder);
    const known = await (await fetched(new URL("network.json", base))).json();
    if (known.format !== "snukeras-web" || known.version !== 1) {
      throw new Error("network.json is of another version than this page: export the model again");
    }
    const ort = await import(new URL(RUNTIME, folderURL(runtime)));
    ort.env.wasm.numThreads = 1; // threads would need headers that a plain server does not send
    ort.env.logLevel = "error";
    const graph = await (await fetched(new URL("model-web.onnx", base))).arrayBuffer();
    const session = await ort.InferenceSession.create(new Uint8Array(graph), {
      executionProviders: ["wasm"],
    });
    return new Network(known, ort, session);
  }

  constructor(known, ort, session) {
    Object.assign(this, { known, ort, session });
    this.samples = known.samples.map((entry) => ({ name: entry.name, ...unpack(entry) }));
  }

  /** Begin a sample: states are zero again. */
  start(index) {
    this.sample = this.samples[index];
    this.at = 0;
    this.whole = null;
    this.states = {};
    for (const state of this.known.states) {
      this.states[state.in] = new this.ort.Tensor("float32", new Float32Array(state.units), [1, state.units]);
    }
    const { over_time, frame } = this.known.input;
    const length = this.sample.shape[0];
    this.steps = 1;
    if (this.known.steps === "one" && over_time) {
      this.steps = frame ? 1 + Math.floor((length - frame.frame_length) / frame.frame_step) : length;
    }
  }

  /** Run the next step: {step, steps, outputs, layers}, arrays by name; null behind the last one. */
  async next() {
    if (this.at >= this.steps) return null;
    const found = this.known.steps === "one" ? await this.#step() : await this.#slice();
    this.at += 1;
    return { step: this.at - 1, steps: this.steps, ...found };
  }

  #feed(values, shape) {
    const { name, dtype } = this.known.input;
    const kind = ARRAYS[dtype];
    const big = kind === BigInt64Array || kind === BigUint64Array;
    const data = big ? kind.from(values, (value) => BigInt(value)) : kind.from(values);
    return { [name]: new this.ort.Tensor(dtype, data, [1, ...shape]) };
  }

  async #step() {
    const { over_time, frame } = this.known.input;
    const { shape, values } = this.sample;
    let given = [values, shape];
    if (frame) {
      const from = this.at * frame.frame_step;
      given = [values.subarray(from, from + frame.frame_length), [frame.frame_length]];
    } else if (over_time) {
      const size = product(shape.slice(1));
      given = [values.subarray(this.at * size, (this.at + 1) * size), shape.slice(1)];
    }
    const results = await this.session.run({ ...this.#feed(...given), ...this.states });
    for (const state of this.known.states) this.states[state.in] = results[state.out];
    const outputs = {};
    const layers = {};
    for (const { name } of this.known.outputs) outputs[name] = results[name].data;
    for (const { name, tensor } of this.known.layers) layers[name] = results[tensor].data;
    return { outputs, layers };
  }

  async #slice() {
    if (!this.whole) {
      this.whole = await this.session.run({
        ...this.#feed(this.sample.values, this.sample.shape), ...this.states,
      });
      const over = [
        ...this.known.layers.map((layer) => layer.tensor),
        ...this.known.outputs.filter((output) => output.over_time).map((output) => output.name),
      ];
      this.steps = Math.max(1, ...over.map((name) => this.whole[name].dims[1]));
    }
    const cut = (name) => {
      const { data, dims } = this.whole[name];
      const size = product(dims.slice(2));
      return data.slice(this.at * size, (this.at + 1) * size);
    };
    const outputs = {};
    const layers = {};
    for (const { name, over_time } of this.known.outputs) {
      if (over_time) outputs[name] = cut(name);
      else if (this.at === this.steps - 1) outputs[name] = this.whole[name].data;
    }
    for (const { name, tensor } of this.known.layers) layers[name] = cut(tensor);
    return { outputs, layers };
  }

  /** Run a sample whole: {steps, outputs, layers}, for each name the arrays of all steps. */
  async run(index) {
    this.start(index);
    const outputs = {};
    const layers = {};
    for (let now; (now = await this.next()); ) {
      for (const [into, from] of [[outputs, now.outputs], [layers, now.layers]]) {
        for (const [name, values] of Object.entries(from)) (into[name] ??= []).push(Array.from(values, Number));
      }
    }
    return { steps: this.steps, outputs, layers };
  }

  /** Compare the first sample with what Keras made of it: {steps, worst, spikes, different}. */
  async check() {
    const { outputs, layers } = this.known.check;
    const found = await this.run(0);
    const result = { steps: found.steps, worst: 0, spikes: 0, different: 0 };
    for (const { name, over_time } of this.known.outputs) {
      const wanted = unpack(outputs[name]).values;
      const all = found.outputs[name];
      const got = over_time && this.steps > 1 ? all.flat() : all.at(-1);
      wanted.forEach((value, at) => (result.worst = Math.max(result.worst, Math.abs(value - got[at]))));
    }
    for (const { name, spiking } of this.known.layers) {
      if (!spiking || !(name in layers)) continue;
      const got = found.layers[name].flat();
      const wanted = unpack(layers[name]).values; // of the first steps alone, where there are many
      wanted.forEach((value, at) => (result.different += value !== got[at]));
      result.spikes += wanted.length;
    }
    return result;
  }
}

/** Sounds the keys of a piano; silent until `on` is set. */
class Piano {
  on = false;
  #voices = new Map();

  /** Let exactly these keys sound; call it from a click first, as browsers ask. */
  sound(keys) {
    if (!this.on) return this.silence();
    this.context ??= new AudioContext();
    this.context.resume();
    const now = this.context.currentTime;
    for (const [key, voice] of this.#voices) if (!keys.includes(key)) this.#end(key, voice, now);
    for (const key of keys) {
      if (this.#voices.has(key)) continue;
      const oscillator = new OscillatorNode(this.context, {
        type: "triangle", frequency: 440 * 2 ** ((key + LOWEST - 69) / 12),
      });
      const gain = new GainNode(this.context, { gain: 0 });
      gain.gain.setTargetAtTime(0.09, now, 0.015);
      oscillator.connect(gain).connect(this.context.destination);
      oscillator.start(now);
      this.#voices.set(key, { oscillator, gain });
    }
  }

  silence() {
    for (const [key, voice] of this.#voices) this.#end(key, voice, this.context.currentTime);
  }

  #end(key, { oscillator, gain }, now) {
    gain.gain.setTargetAtTime(0, now, 0.06);
    oscillator.stop(now + 0.5);
    this.#voices.delete(key);
  }
}

/** Columns of numbers over time on a canvas, each row a key, a unit or an output. */
class Raster {
  #columns = new Map();
  #marks = new Map();
  #largest = 0;

  /**
   * @param parent Where it stands.
   * @param caption What it shows.
   * @param options columns; rows; height in pixels; kind: "ink" (0 to 1), "blue" (0 to 1) or "signed";
   *   labels: texts by row (those of rows that share a line stand there); upwards: whether row 0 is below; square: whether it is a picture.
   */
  constructor(parent, caption, options) {
    Object.assign(this, { kind: "ink", labels: {}, upwards: false, square: false, ...options });
    this.pool = Math.ceil(this.rows / 256); // so many rows share one, which shows their largest
    this.lines = Math.ceil(this.rows / this.pool);
    const figure = document.createElement("figure");
    this.caption = document.createElement("figcaption");
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", caption);
    this.canvas.classList.toggle("snu-square", this.square);
    this.say(this.text = caption);
    figure.append(this.caption, this.canvas);
    parent.append(figure);
    if (this.square) this.canvas.style.aspectRatio = `${this.columns} / ${this.rows}`;
    else this.canvas.style.height = `${this.lines * Math.max(1, Math.round(this.height / this.lines)) + 2}px`;
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(this.canvas);
  }

  say(text) {
    this.caption.textContent = this.pool > 1 ? `${text}; a row shows the largest of ${this.pool}` : text;
  }

  column(at, values) {
    const held = new Float32Array(this.lines);
    for (let row = 0; row < this.rows; row += 1) {
      const line = Math.floor(row / this.pool);
      const value = Number(values[row]);
      if (Math.abs(value) > Math.abs(held[line])) held[line] = value;
    }
    this.#columns.set(at, held);
    const largest = held.reduce((most, value) => Math.max(most, Math.abs(value)), this.#largest);
    if (largest > this.#largest && this.kind === "signed") {
      this.#largest = largest;
      this.draw();
    } else {
      this.#paint(at);
    }
  }

  /** Frame these rows of a column. */
  mark(at, rows) {
    this.#marks.set(at, rows);
    this.#paint(at);
  }

  draw() {
    const scale = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth) return;
    this.canvas.width = Math.round(clientWidth * scale);
    this.canvas.height = Math.round(clientHeight * scale);
    this.context = this.canvas.getContext("2d");
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(name).trim() || "#1a1a1a";
    this.colours = {
      ink: colour("--snu-ink"), blue: colour("--snu-blue"), orange: colour("--snu-orange"),
      rule: colour("--snu-rule"),
    };
    this.left = this.square ? 0 : 34; // for labels, so that columns of all pictures are above each other
    this.width = (clientWidth - this.left - 2) / this.columns;
    this.step = (clientHeight - 2) / this.lines;
    this.context.font = "11px system-ui, sans-serif";
    this.context.textBaseline = "middle";
    this.context.fillStyle = this.colours.ink;
    for (const [row, text] of Object.entries(this.labels)) {
      const y = this.#y(Math.floor(row / this.pool)) + this.step / 2;
      this.context.fillText(text, 0, Math.min(Math.max(y, 6), clientHeight - 6));
    }
    this.context.strokeStyle = this.colours.rule;
    this.context.strokeRect(this.left + 0.5, 0.5, clientWidth - this.left - 1, clientHeight - 1);
    for (const at of this.#columns.keys()) this.#paint(at);
  }

  #y(line) {
    return (this.upwards ? this.lines - 1 - line : line) * this.step + 1;
  }

  #paint(at) {
    const { context } = this;
    if (!context) return;
    const x = this.left + 1 + at * this.width;
    context.clearRect(x, 1, this.width, this.canvas.clientHeight - 2);
    (this.#columns.get(at) ?? []).forEach((value, line) => {
      if (value === 0) return;
      const { ink, blue, orange } = this.colours;
      if (this.kind === "ink") {
        // 2 and -1 are spikes that another network does not have, or has alone.
        context.globalAlpha = value < 0 ? 0.4 : Math.min(1, value);
        context.fillStyle = value < 0 || value > 1 ? orange : ink;
      } else {
        context.globalAlpha = this.kind === "signed" ? Math.abs(value) / (this.#largest || 1) : Math.min(1, value);
        context.fillStyle = value < 0 ? orange : blue;
      }
      context.fillRect(x, this.#y(line), this.width, Math.max(1, this.step));
    });
    context.globalAlpha = 1;
    context.strokeStyle = this.colours.ink;
    for (const line of this.#marks.get(at) ?? []) {
      context.strokeRect(x + 1, this.#y(line) + 0.5, Math.max(1, this.width - 2), Math.max(1, this.step - 1));
    }
  }

  end() {
    this.watcher.disconnect();
  }
}

const noteName = (key) => `${NOTES[(key + LOWEST) % 12]}${Math.floor((key + LOWEST) / 12) - 1}`;
const sounding = (row) => [...row.keys()].filter((key) => row[key] > 0.5);
const most = (values) => values.reduce((best, value, at) => (value > values[best] ? at : best), 0);

/** The pictures of one network beside what it hears. */
class Pictures {
  constructor(parent, network, title, keys, columns) {
    this.network = network;
    this.keys = keys;
    this.columns = columns;
    this.parent = document.createElement("section");
    if (title) this.#text("h3", title);
    this.figure = keys ? this.#text("p", "") : null;
    if (this.figure) this.figure.className = "snu-figure";
    this.layers = {};
    this.outputs = {};
    parent.append(this.parent);
    this.surprise = this.counted = 0;
  }

  #text(tag, text) {
    const element = document.createElement(tag);
    element.textContent = text;
    this.parent.append(element);
    return element;
  }

  /**
   * Show a step; `heard` is the row of keys that it heard, `coming` the next one or null, `others` the
   * layers of the network that this one is compared with, or null.
   */
  show(now, heard, coming, others) {
    for (const { name, spiking } of this.network.known.layers) {
      const values = now.layers[name];
      const picture = (this.layers[name] ??= this.#layer(name, spiking, values.length));
      const share = (counted) => `${Math.round((100 * counted) / values.length)}%`;
      const other = spiking ? others?.[name] : undefined;
      if (other) {
        // A spike of this network alone is 2, one of the other alone -1.
        const shown = values.map((value, at) => (value === other[at] ? value : value ? 2 : -1));
        picture.column(now.step, shown);
        const differ = shown.reduce((sum, value) => sum + (value !== 0 && value !== 1), 0);
        picture.say(`Spikes of ${name}: ${share(differ)} differ, orange (pale: missing)`);
        continue;
      }
      picture.column(now.step, values);
      const spikes = values.reduce((sum, value) => sum + (value > 0), 0);
      if (spiking) picture.say(`${picture.text}, ${share(spikes)} of them now`);
    }
    for (const [name, values] of Object.entries(now.outputs)) {
      if (this.keys) this.#expected(name, now.step, Array.from(values), heard, coming);
      else this.#output(name, now, values);
    }
  }

  #layer(name, spiking, units) {
    const caption = `${spiking ? "Spikes" : "Outputs"} of ${name}, ${units} units`;
    return new Raster(this.parent, caption, {
      rows: units, columns: this.columns, height: Math.min(150, Math.max(40, 6 * units)),
      kind: spiking ? "ink" : "signed", labels: { 0: "1", [units - 1]: `${units}` },
    });
  }

  #expected(name, step, values, heard, coming) {
    const { low, high } = this.keys;
    const picture = (this.outputs[name] ??= new Raster(this.parent, "Expected notes; framed: what came", {
      rows: high - low, columns: this.columns, height: 150, kind: "blue", upwards: true, labels: this.keys.labels,
    }));
    picture.column(step + 1, values.slice(low, high));
    if (step) picture.mark(step, sounding(heard).map((key) => key - low));
    const best = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, 4).sort((a, b) => a - b);
    let text = `Expects ${best.map(noteName).join(" ")}.`;
    if (coming) {
      values.forEach((p, key) => (this.surprise -= Math.log(Math.max(1e-7, coming[key] > 0.5 ? p : 1 - p))));
      this.counted += 1;
    }
    if (this.counted) text += ` Surprise so far: ${(this.surprise / this.counted).toFixed(2)} nats a step.`;
    this.figure.textContent = text;
  }

  #output(name, now, values) {
    // One that comes behind the last step has no time.
    const { steps, outputs } = this.network.known;
    const once = steps === "all" && !outputs.find((output) => output.name === name).over_time;
    const picture = (this.outputs[name] ??= new Raster(this.parent, `Output ${name}, ${values.length} numbers`, {
      rows: values.length, columns: once ? 1 : this.columns, kind: "signed",
      height: Math.min(150, Math.max(30, 12 * values.length)),
      labels: values.length > 12 ? { 0: "0", [values.length - 1]: `${values.length - 1}` } : { ...[...values.keys()] },
    }));
    picture.column(once ? 0 : now.step, values);
    const value = Number(values[most(values)]);
    picture.say(`${picture.text}; largest: ${values.length > 1 ? `number ${most(values)}, ` : ""}${value.toPrecision(3)}`);
  }

  end() {
    for (const picture of [...Object.values(this.layers), ...Object.values(this.outputs)]) picture.end();
    this.parent.remove();
  }
}

/** The player: controls, what is heard, and the pictures of each network. */
class Player {
  #timer = null; // null where nothing plays
  #queue = Promise.resolve();

  constructor(element) {
    this.element = element;
    this.folders = element.dataset.networks.split(/\s+/);
    this.titles = (element.dataset.titles ?? "").split("|");
    this.runtime = element.dataset.runtime ?? this.folders[0];
    this.piano = new Piano();
    element.classList.add("snu-player");
    const still = [...element.childNodes];
    this.controls = this.#add("div", "snu-controls");
    this.play = this.#button("Play", () => (this.#timer === null ? this.#start() : this.#stop()));
    this.play.classList.add("snu-main");
    this.once = this.#button("Step", () => this.#alone());
    this.piece = this.#choice("Piece", [], () => this.#other());
    this.speed = this.#choice("Speed", [["1", "slow"], ["2", "normal"], ["8", "fast"]], () => {});
    this.speed.value = "2";
    this.sound = this.#sound();
    this.status = this.#add("span", "snu-status", this.controls);
    this.still = this.#add("div", "snu-still"); // until the networks are there
    this.still.append(...still);
    this.heard = this.#add("div", "snu-heard");
    this.panels = this.#add("div", "snu-networks");
    this.note = this.#add("p", "snu-note");
    this.piece.parentElement.hidden = true;
    if ("start" in element.dataset) this.#guarded(() => this.#load());
    else this.status.textContent = element.dataset.size ? `loads ${element.dataset.size} once` : "";
  }

  #add(tag, name, parent = this.element) {
    const made = document.createElement(tag);
    made.className = name;
    parent.append(made);
    return made;
  }

  #button(text, pressed) {
    const button = this.#add("button", "", this.controls);
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => this.#guarded(pressed));
    return button;
  }

  #choice(text, options, changed) {
    const label = this.#add("label", "", this.controls);
    const select = document.createElement("select");
    label.append(text, select);
    for (const [value, name] of options) select.add(new Option(name, value));
    select.addEventListener("change", () => this.#guarded(changed));
    return select;
  }

  #sound() {
    const label = this.#add("label", "", this.controls);
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    label.append(box, "Sound");
    box.addEventListener("change", () => {
      this.piano.on = box.checked;
      if (!box.checked) this.piano.silence();
    });
    label.hidden = true;
    return box;
  }

  /** Do what was asked for, behind what is being done. */
  #guarded(work) {
    this.#queue = this.#queue.then(work).catch((error) => {
      this.#stop();
      this.note.classList.add("snu-problem");
      this.note.textContent = `The network could not be run: ${error.message ?? error}.`;
      console.error(error);
    });
  }

  async #load() {
    this.play.disabled = this.once.disabled = true;
    this.status.textContent = "loading";
    if ("start" in this.element.dataset) this.still.remove();
    const opened = [];
    // One after the other: both share the runtime.
    for (const folder of this.folders) opened.push(await Network.open(folder, this.runtime));
    this.networks = opened;
    const [{ samples, known }] = this.networks;
    samples.forEach((sample, index) => this.piece.add(new Option(sample.name, index)));
    this.piece.parentElement.hidden = samples.length < 2;
    this.piece.parentElement.firstChild.textContent = known.keys ? "Piece" : "Sample";
    this.sound.parentElement.hidden = !known.keys;
    this.piano.on = this.sound.checked && known.keys;
    for (const title of "start" in this.element.dataset ? document.querySelectorAll("title, h1") : []) {
      title.textContent = `${known.name.replace(/^zoo:/, "")} in the browser`;
    }
    await this.#compare();
    this.still.remove();
    await this.#begin();
    this.play.disabled = this.once.disabled = false;
  }

  /** Say whether this browser computes what Keras computed. */
  async #compare() {
    const found = [];
    for (const network of this.networks) found.push(await network.check());
    const all = (key) => found.reduce((sum, result) => sum + result[key], 0);
    const worst = Math.max(...found.map((result) => result.worst));
    const within = worst ? ` within ${worst.toExponential(0)}` : "";
    let text = `Checked in this browser on the first sample: outputs equal Keras's${within}`;
    if (all("spikes")) text += `, ${all("different")} of ${all("spikes").toLocaleString("en")} spikes differ`;
    this.note.textContent = `${text}.`;
    this.element.dataset.checked = JSON.stringify(found);
  }

  async #other() {
    const going = this.#timer !== null;
    this.#stop();
    await this.#begin();
    if (going) await this.#start();
  }

  /** Put the chosen piece on, from its beginning. */
  async #begin() {
    const index = Number(this.piece.value || 0);
    for (const network of this.networks) network.start(index);
    for (const pictures of this.pictures ?? []) pictures.end();
    this.input?.end();
    this.heard.replaceChildren();
    const [first] = this.networks;
    this.sample = first.sample;
    this.rows = first.known.keys ? this.#keys() : null;
    // A network that runs whole says only then how many steps there are.
    this.waiting = await this.#next();
    this.ended = false;
    const columns = first.steps + (this.rows ? 1 : 0);
    this.input = this.#listen(columns);
    this.pictures = this.networks.map(
      (network, at) => new Pictures(this.panels, network, this.titles[at], this.rows, columns),
    );
    this.status.textContent = `${first.steps} steps`;
  }

  /** The next step of each network; one after the other, for they share the runtime. */
  async #next() {
    const found = [];
    for (const network of this.networks) found.push(await network.next());
    return found;
  }

  /** The keys that the sample uses, and some around them. */
  #keys() {
    const [steps, keys] = this.sample.shape;
    const used = [];
    for (let at = 0; at < steps * keys; at += 1) if (this.sample.values[at]) used.push(at % keys);
    const low = Math.max(0, Math.min(...used, keys - 1) - 4);
    const high = Math.min(keys, Math.max(...used, 0) + 5);
    const labels = {};
    for (let key = low; key < high; key += 1) if ((key + LOWEST) % 12 === 0) labels[key - low] = noteName(key);
    return { low, high, labels };
  }

  #listen(columns) {
    const { shape } = this.sample;
    const { known } = this.networks[0];
    if (this.rows) {
      return new Raster(this.heard, "What it hears", {
        rows: this.rows.high - this.rows.low, columns, height: 150, upwards: true, labels: this.rows.labels,
      });
    }
    const caption = `Input ${known.input.name}`;
    if (known.input.frame) return new Raster(this.heard, `${caption}: loudness of each frame`, { rows: 1, columns, height: 30 });
    if (known.steps === "one" && known.input.over_time) {
      const rows = product(shape.slice(1));
      return new Raster(this.heard, caption, { rows, columns, kind: "signed", height: Math.min(150, Math.max(30, 8 * rows)) });
    }
    // The whole sample at once: a picture, or its steps along the x axis.
    const picture = shape.length > 2 || (shape.length === 2 && shape[0] !== this.networks[0].steps);
    const [wide, tall] = picture ? [shape[1], shape[0]] : [shape[0], product(shape.slice(1))];
    const deep = product(shape.slice(2));
    const raster = new Raster(this.heard, caption, {
      rows: tall, columns: wide, kind: "signed", square: picture, height: Math.min(150, Math.max(30, 8 * tall)),
    });
    for (let x = 0; x < wide; x += 1) {
      raster.column(x, Float32Array.from({ length: tall }, (_, y) =>
        Number(this.sample.values[picture ? (y * wide + x) * deep : x * tall + y])));
    }
    return raster;
  }

  /** Show one step in all pictures; the next one is computed meanwhile. */
  async #advance() {
    if (this.ended) await this.#begin(); // once more
    const [{ step, steps }] = this.waiting;
    const heard = this.rows && stepOf(this.sample, step);
    const coming = this.rows && step + 1 < steps ? stepOf(this.sample, step + 1) : null;
    const { known } = this.networks[0];
    if (this.rows) {
      this.input.column(step, heard.subarray(this.rows.low, this.rows.high));
      this.piano.sound(sounding(heard));
    } else if (known.input.frame) {
      const { frame_length: length, frame_step: hop } = known.input.frame;
      const part = this.sample.values.subarray(step * hop, step * hop + length);
      this.input.column(step, [Math.sqrt(part.reduce((sum, x) => sum + x * x, 0) / length) * 4]);
    } else if (known.steps === "one" && known.input.over_time) {
      this.input.column(step, stepOf(this.sample, step));
    }
    const [{ layers }] = this.waiting;
    this.pictures.forEach((pictures, at) =>
      pictures.show(this.waiting[at], heard, coming, at ? layers : null));
    this.status.textContent = `step ${step + 1} of ${steps}`;
    this.waiting = await this.#next();
    if (this.waiting[0] === null) {
      this.ended = true;
      this.#stop(1000 / Number(this.speed.value));
    }
  }

  async #start() {
    if (!this.networks) await this.#load();
    this.play.textContent = "Pause";
    const tick = async () => {
      if (this.#timer === null) return; // stopped meanwhile
      const next = performance.now() + 1000 / Number(this.speed.value);
      await this.#advance();
      if (this.#timer === null) return;
      this.#timer = setTimeout(() => this.#guarded(tick), Math.max(0, next - performance.now()));
    };
    this.#timer = 0;
    await tick();
  }

  async #alone() {
    if (!this.networks) await this.#load();
    this.#stop();
    await this.#advance();
  }

  /** Stop; the last notes sound for so many milliseconds more. */
  #stop(after = 0) {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.play.textContent = "Play";
    setTimeout(() => this.#timer ?? this.piano.silence(), after);
  }
}

const stepOf = ({ shape, values }, at) => {
  const size = product(shape.slice(1));
  return values.subarray(at * size, (at + 1) * size);
};

for (const element of document.querySelectorAll("[data-snu-player]")) new Player(element);
