// The page: takes photos, and shows what the worker makes of them.

const find = (id) => document.getElementById(id);
if (location.protocol === "file:") {
  say("Browsers run this page from a server only, such as python3 -m http.server.", true);
}
const worker = new Worker("worker.js");
const photos = []; // in the order in which they were given
let shown = [];

function take(file) {
  if (!file) return;
  const number = photos.push(file) - 1;
  find("result").hidden = true;
  say(`${file.name}: working ...`);
  worker.postMessage({ number, file, size: find("size").value || undefined });
}

worker.onmessage = ({ data }) => {
  const isLatest = data.number === photos.length - 1;
  if (data.ready) {
    find("size").append(...data.sizes.map((size) => new Option(size)));
    find("sizes").hidden = data.sizes.length < 2;
    if (!photos.length) say("Ready. From here on the page needs no network.");
  } else if (data.number === undefined || (isLatest && data.error)) {
    say(data.error, true);
  } else if (isLatest) {
    show(photos[data.number], data);
  }
};
worker.onerror = (event) => {
  event.preventDefault();
  say(`The page does not work in this browser: ${event.message ?? "its files are missing"}.`, true);
};

function say(text, isError = false) {
  find("status").textContent = text;
  find("status").classList.toggle("error", isError);
}

function show(photo, { cutout, matte, width, height, seconds, isEmpty }) {
  shown.forEach((url) => URL.revokeObjectURL(url));
  shown = Object.entries({ photo, cutout, matte }).map(([kind, blob]) => {
    const url = URL.createObjectURL(blob);
    find(kind).src = url;
    return url;
  });
  const stem = photo.name.replace(/\.[^.]*$/, "");
  find("save-cutout").href = find("cutout").src;
  find("save-cutout").download = `${stem}.cutout.png`;
  find("save-matte").href = find("matte").src;
  find("save-matte").download = `${stem}.alpha.png`;
  find("result").hidden = false;
  const empty = isEmpty ? "no subject found, " : "";
  say(`${photo.name}: ${empty}${width}x${height} pixels, ${seconds.toFixed(1)} s.`);
}

find("choose").onchange = ({ target }) => {
  take(target.files[0]);
  target.value = ""; // so that the same photo can be chosen again
};
find("size").onchange = () => take(photos.at(-1));
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
};
document.onpaste = (event) => take(event.clipboardData.files[0]);
