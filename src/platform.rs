//! What differs between a page's worker and a native process: the clock, and giving way to other tasks.

/// Milliseconds since some moment in the past.
#[cfg(not(target_arch = "wasm32"))]
pub fn now_ms() -> f64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3
}

/// Lets other tasks run: in a worker, messages such as a cancellation arrive meanwhile.
#[cfg(any(test, not(target_arch = "wasm32")))]
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Milliseconds since some moment in the past.
#[cfg(target_arch = "wasm32")]
pub fn now_ms() -> f64 {
    use wasm_bindgen::prelude::*;
    #[wasm_bindgen]
    extern "C" {
        #[wasm_bindgen(js_namespace = performance, js_name = now)]
        fn performance_now() -> f64;
    }
    performance_now()
}

#[cfg(all(target_arch = "wasm32", not(test)))]
pub use web::yield_now;
#[cfg(all(target_arch = "wasm32", not(test)))]
pub(crate) use web::{logs, panicked};

#[cfg(all(target_arch = "wasm32", not(test)))]
mod web {
    use wasm_bindgen::prelude::*;
    use wasm_bindgen_futures::JsFuture;

    // A promise's continuation is a microtask: messages would not get in between. A message to oneself is a macrotask, and is
    // not delayed as a nested setTimeout is. In threads `thread.js` has what is done about panics.
    #[wasm_bindgen(inline_js = "
        const channel = new MessageChannel();
        const waiting = [];
        channel.port1.onmessage = () => waiting.shift()();
        export function macrotask() {
            return new Promise(resolve => { waiting.push(resolve); channel.port2.postMessage(0); });
        }
        export function logs() {
            return true;
        }
        export function panicked(message) {
            throw new WebAssembly.RuntimeError(message);
        }
    ")]
    extern "C" {
        fn macrotask() -> js_sys::Promise;
        /// Whether this thread can reach the console.
        pub fn logs() -> bool;
        /// A trap that says what happened.
        pub fn panicked(message: &str);
    }

    /// Lets other tasks run: in a worker, messages such as a cancellation arrive meanwhile.
    pub async fn yield_now() {
        // The promise is never rejected.
        let _ = JsFuture::from(macrotask()).await;
    }
}
