// Sends an image to the server, and shows it with its label map in NiiVue.
"use strict";

const element = (id) => document.getElementById(id);
const viewer = new niivue.Niivue({
  dragAndDropEnabled: false,
  isResizeCanvas: true,
  loadingText: "",
  backColor: [0.08, 0.09, 0.1, 1],
  crosshairColor: [0.2, 0.8, 1, 0.6],
  crosshairWidth: 0.3,
});
let domains = [];
let downloadAddress = "";
// Files that wait until their modalities are confirmed.
let chosenFiles = [];

function chosenDomain() {
  return domains.find((domain) => domain.name === element("domain").value);
}

function setStatus(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

function showModalities() {
  const { modalities } = chosenDomain();
  const title = modalities.length === 1 ? "Modality" : "Modalities";
  element("modalities").textContent = `${title}: ${modalities.join(", ")}`;
  element("assignment").hidden = true;
}

async function loadDomains() {
  const response = await fetch("domains");
  domains = await response.json();
  for (const { name } of domains) {
    element("domain").add(new Option(name, name));
  }
  showModalities();
}

function labelColors(domain) {
  const part = (color, start) => parseInt(color.slice(start, start + 2), 16);
  const colors = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
  for (const { name, value, color } of domain.classes) {
    colors.R.push(part(color, 1));
    colors.G.push(part(color, 3));
    colors.B.push(part(color, 5));
    colors.A.push(255);
    colors.I.push(value);
    colors.labels.push(name);
  }
  return colors;
}

function clearResult() {
  while (viewer.volumes.length > 0) {
    viewer.removeVolume(viewer.volumes[viewer.volumes.length - 1]);
  }
  element("result").hidden = true;
  element("warnings").replaceChildren();
}

async function showVolumes(image, labels, domain) {
  // NiiVue does not read DICOM: the label map is then shown alone.
  if (/\.(nii|nii\.gz|nrrd|mha)$/i.test(image.name)) {
    viewer.addVolume(
      await niivue.NVImage.loadFromFile({ file: image, name: image.name }),
    );
  }
  const overlay = await niivue.NVImage.loadFromFile({
    file: new File([labels], "labels.nii.gz"),
    name: "labels.nii.gz",
  });
  overlay.setColormapLabel(labelColors(domain));
  viewer.addVolume(overlay);
  setOpacity();
}

function setOpacity() {
  if (viewer.volumes.length > 0) {
    viewer.setOpacity(viewer.volumes.length - 1, Number(element("opacity").value));
  }
}

function showTable(domain, volumes) {
  const rows = domain.classes.map(({ name, color }) => {
    const row = document.createElement("tr");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = color;
    row.insertCell().append(swatch, name);
    row.insertCell().textContent = volumes[name].toLocaleString("en", {
      maximumSignificantDigits: 3,
    });
    return row;
  });
  element("classes").replaceChildren(...rows);
  element("result").hidden = false;
}

function showWarnings(warnings) {
  const items = warnings.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  });
  element("warnings").replaceChildren(...items);
}

function offerDownload(labels) {
  URL.revokeObjectURL(downloadAddress);
  downloadAddress = URL.createObjectURL(labels);
  element("download").href = downloadAddress;
  element("download").download = "labels.nii.gz";
}

function acceptFiles(files) {
  if (files.length === 0 || element("files").disabled) {
    return;
  }
  const { modalities } = chosenDomain();
  if (modalities.length > 1 && files.length === modalities.length) {
    // The order in which a browser lists files says nothing.
    askForModalities(files, modalities);
  } else {
    segment(files);
  }
}

// Returns the index of a file for each modality: one that is named like it, or any other.
function suggestFiles(files, modalities) {
  const names = files.map((file) => file.name.toLowerCase());
  const rest = new Set(names.keys());
  const take = (index) => (rest.delete(index) ? index : undefined);
  const named = modalities.map((modality) =>
    take([...rest].find((index) => names[index].includes(modality.toLowerCase()))),
  );
  return named.map((index) => index ?? take([...rest][0]));
}

function askForModalities(files, modalities) {
  clearResult();
  chosenFiles = files;
  const suggested = suggestFiles(files, modalities);
  const rows = modalities.map((modality, number) => {
    const label = document.createElement("label");
    const select = document.createElement("select");
    files.forEach((file, index) => select.add(new Option(file.name, index)));
    select.value = suggested[number];
    label.append(modality, select);
    return label;
  });
  element("modality-files").replaceChildren(...rows);
  element("assignment").hidden = false;
  element("files").value = "";
  setStatus("Check which file is which modality.");
}

function segmentAssigned() {
  const indices = [...element("modality-files").querySelectorAll("select")].map(
    (select) => Number(select.value),
  );
  if (new Set(indices).size < indices.length) {
    setStatus("Each file can be only one modality.", true);
    return;
  }
  segment(indices.map((index) => chosenFiles[index]));
}

function describeFiles(files, modalities) {
  if (modalities.length === 1 || files.length !== modalities.length) {
    return "";
  }
  const parts = modalities.map((modality, index) => `${modality}: ${files[index].name}`);
  return ` ${parts.join("; ")}.`;
}

async function segment(files) {
  const domain = chosenDomain();
  const form = new FormData();
  for (const file of files) {
    form.append("image", file, file.name);
  }
  clearResult();
  element("assignment").hidden = true;
  element("files").disabled = true;
  setStatus("Segmenting …");
  const start = performance.now();
  try {
    const query = new URLSearchParams({ domain: domain.name });
    const response = await fetch(`segment?${query}`, { method: "POST", body: form });
    if (!response.ok) {
      const text = await response.text();
      const isJson = response.headers.get("Content-Type") === "application/json";
      throw new Error(isJson ? JSON.parse(text).error : text);
    }
    const labels = await response.blob();
    showTable(domain, JSON.parse(response.headers.get("X-Volumes-Ml")));
    showWarnings(JSON.parse(response.headers.get("X-Warnings")));
    offerDownload(labels);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    await showVolumes(files[0], labels, domain);
    setStatus(`Segmented in ${seconds} s.${describeFiles(files, domain.modalities)}`);
  } catch (error) {
    setStatus(error.message, true);
  } finally {
    element("files").disabled = false;
    element("files").value = "";
  }
}

function acceptDrops() {
  const drop = element("drop");
  // Anywhere on the page: a browser opens a file that is dropped elsewhere.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    acceptFiles([...event.dataTransfer.files]);
  });
}

async function start() {
  element("domain").addEventListener("change", showModalities);
  element("files").addEventListener("change", (event) =>
    acceptFiles([...event.target.files]),
  );
  element("assignment").addEventListener("submit", (event) => {
    event.preventDefault();
    segmentAssigned();
  });
  element("opacity").addEventListener("input", setOpacity);
  acceptDrops();
  await viewer.attachToCanvas(element("viewer"));
  viewer.setSliceType(viewer.sliceTypeMultiplanar);
  await loadDomains();
}

start().catch((error) => setStatus(error.message, true));
