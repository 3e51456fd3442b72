// What the page can do more with JavaScript: drop, paste, preview, and the answer in place. Without it the form just posts.
"use strict";
document.documentElement.classList.add("js");

function form() { return document.querySelector("form[data-upload]"); }

function show(files) {
  const place = document.querySelector("[data-previews]");
  if (!place) return;
  place.replaceChildren(...[...files].slice(0, 8).filter((file) => file.type.startsWith("image/")).map((file) => {
    const image = document.createElement("img");
    image.alt = file.name;
    image.src = URL.createObjectURL(file);
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
    return image;
  }));
}

function take(files) {
  const images = [...files].filter((file) => file instanceof File);
  const input = form()?.querySelector("input[type=file]");
  if (!input || images.length === 0) return false;
  const transfer = new DataTransfer();
  images.forEach((file) => transfer.items.add(file));
  input.files = transfer.files;
  show(images);
  form().requestSubmit();
  return true;
}

// Posts the form; `fetch` would not tell how far the upload is.
function post(target, sent) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", target.action);
    request.setRequestHeader("Accept", "text/html");
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) sent(event.loaded / event.total);
    });
    request.addEventListener("load", () => resolve(request));
    request.addEventListener("error", () => reject(new Error("the connection broke")));
    request.send(new FormData(target));
  });
}

async function send(target) {
  const button = target.querySelector("button[type=submit]");
  // One at a time: a paste while a picture is on its way is no second request. Not `disabled`, which would take the focus away.
  if (button.disabled || button.getAttribute("aria-disabled") === "true") return;
  const bar = target.querySelector("[data-progress]");
  const status = target.querySelector("[data-status]");
  button.setAttribute("aria-disabled", "true");
  status.textContent = "Sending…";
  // Small pictures are there before a bar could be seen.
  const late = setTimeout(() => { bar.hidden = false; }, 300);
  try {
    const answer = await post(target, (part) => {
      bar.value = 100 * part;
      if (part === 1) status.textContent = "Looking…";
    });
    const page = new DOMParser().parseFromString(answer.responseText, "text/html");
    const main = page.querySelector("main");
    if (!main || !main.firstElementChild) throw new Error(`the answer has status ${answer.status} and no page`);
    document.querySelector("main").replaceWith(document.adoptNode(main));
    if (page.title) document.title = page.title;
    history.pushState({ answered: true }, "", location.href);
    scrollTo(0, 0);
    document.querySelector("[data-heading]")?.focus();
  } catch (error) {
    const alert = document.createElement("div");
    alert.className = "card alert";
    alert.setAttribute("role", "alert");
    alert.textContent = `The picture could not be sent: ${error.message}. Check the connection and try again.`;
    document.querySelector("main [role=alert]")?.remove();
    target.before(alert);
    status.textContent = "";
    button.removeAttribute("aria-disabled");
    button.focus();
  } finally {
    clearTimeout(late);
    bar.hidden = true;
  }
}

document.addEventListener("submit", (event) => {
  if (event.target !== form()) return;
  event.preventDefault();
  send(event.target);
});
document.addEventListener("change", (event) => {
  if (event.target.matches?.("form[data-upload] input[type=file]")) show(event.target.files);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length && take(event.clipboardData.files)) event.preventDefault();
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    if (!form()) return;
    event.preventDefault();
    document.querySelector("[data-drop]")?.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.querySelector("[data-drop]")?.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (!form()) return;
  event.preventDefault();
  document.querySelector("[data-drop]")?.classList.remove("over");
  if (event.dataTransfer) take(event.dataTransfer.files);
});
// The back button leads from the answer to the form.
addEventListener("popstate", () => location.reload());
