// For pages whose host cannot be told to send headers: with this file beside the page, and
//   <script src="isolation.js"></script>
// first in its head, the page is isolated from other origins as those headers would have it, and may compute by several threads. The
// script of the page and the service worker are this one file; on a page's first visit it loads the page once more.

if (typeof document === "undefined") {
  // Safari knows the stricter policy alone.
  const policy = /Chrom|Firefox/.test(navigator.userAgent) ? "credentialless" : "require-corp";
  addEventListener("install", () => skipWaiting());
  addEventListener("activate", (event) => event.waitUntil(clients.claim()));
  addEventListener("fetch", (event) => {
    const { request } = event;
    // Pages and workers have the policy; everything else, downloads among it, goes by untouched.
    const ours = ["document", "iframe", "worker", "sharedworker"].includes(request.destination);
    if (ours && new URL(request.url).origin === location.origin) event.respondWith(isolated(request));
  });
  const isolated = async (request) => {
    const response = await fetch(request);
    // A redirect is the browser's to follow.
    if (response.status === 0) return response;
    const headers = new Headers(response.headers);
    headers.set("Cross-Origin-Opener-Policy", "same-origin");
    headers.set("Cross-Origin-Embedder-Policy", policy);
    const { status, statusText } = response;
    return new Response([204, 205, 304].includes(status) ? null : response.body, { status, statusText, headers });
  };
} else if (!document.currentScript) {
  console.warn('this page is not isolated: isolation.js is no module, expected <script src="isolation.js"></script>');
} else {
  const { src } = document.currentScript;
  const TRIED = "tintype: loaded again";
  const isolate = async () => {
    if (crossOriginIsolated) return sessionStorage.removeItem(TRIED);
    // Without a service worker, or where it did not help, the page stays as it is.
    if (!navigator.serviceWorker || sessionStorage.getItem(TRIED)) return;
    await navigator.serviceWorker.register(src);
    await navigator.serviceWorker.ready;
    sessionStorage.setItem(TRIED, "yes");
    location.reload();
  };
  isolate().catch((error) => console.warn(`this page is not isolated: ${error.message}`));
}
