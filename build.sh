#!/usr/bin/env bash
# The one door to the project. `./build.sh` alone says what it can do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tintype"
TARGET="${CARGO_TARGET_DIR:-$PWD/target}"
WASM_TARGET=wasm32-unknown-unknown
NODE_MAJOR=20

usage() {
    cat <<'USAGE'
usage: ./build.sh COMMAND

  run [--port N] [--plain]
                      build, then serve the page on this machine (port 8080), with the headers that let it use several threads, or plain
  build               make dist/: the page, and dist/tintype/, the folder that a site copies
  test [rust|wasm|web]
                      all tests, or some: the crate's own, the CPU kernels' once more as WebAssembly in Node, or those in a real browser
                      (what follows goes to the runner: ./build.sh test rust sampler)
  bench [page|race|cpu|unet|store|real|pictures]
                      page: the page bench.html in the browser, on its software adapter unless --backend says otherwise: what the device
                      can do, a step, a decoding, a picture, and a race with onnxruntime-web (--model unet|bk-sdm-tiny|small, --rounds 5,
                      --arithmetic f32|f16, --json FILE)
                      race: the same, of which the race is printed
                      cpu: the page on the CPU: races with onnxruntime-web's wasm on as many threads, and each operation's speed on one at
                      each size of Stable Diffusion 1.5 and of the page's checkpoints (--models unet,bk-sdm-tiny,clip-l, --threads 1,2,
                      --rounds 7, --no-sweep, --json FILE)
                      unet: a UNet on the CPU, timed beside candle-transformers' in one run
                      store: a gigabyte loaded from the browser's storage, beside reading it with nothing else to do
                      real: a checkpoint of a published one's size in the browser, on the CPU: the memory that it takes at most
                      (--shape bk-sdm-tiny|sd-turbo|..., --vae-of sdxs-512-0.9, --folder FOLDER)
                      pictures: seconds to a picture of the page's own checkpoints by each way of drawing, in the browser, on the CPU
                      (--rounds 7)
  check               formatting, lints, documentation and types, for native and for the browser

What a command needs and does not find it installs, and says so: the wasm target (rustup), wasm-bindgen (cargo, into
~/.cache/tintype), wasm-opt, TypeScript, onnxruntime-web and playwright-core (npm, into the project), Chromium and a software Vulkan (apt).
Yours to have: Rust 1.95 or later by rustup, Node 20 or later with npm, a C compiler.
USAGE
}

say() { printf '\n== [%d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }
die() { printf '\nbuild.sh: %s\n' "$*" >&2; exit 1; }

# ---- what the commands need ------------------------------------------------------------------------------------------

need_rust() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust with rustup (https://rustup.rs), then run this again"
}

need_node() {
    command -v node >/dev/null && command -v npm >/dev/null || die "node and npm are missing: install Node $NODE_MAJOR or later"
    local major
    major=$(node -p 'process.versions.node.split(".")[0]')
    [ "$major" -ge "$NODE_MAJOR" ] || die "Node is version $major; $NODE_MAJOR or later is needed"
}

need_wasm_target() {
    need_rust
    [ -d "$(rustc --print sysroot)/lib/rustlib/$WASM_TARGET" ] && return
    command -v rustup >/dev/null || die "this Rust lacks the target $WASM_TARGET and there is no rustup to add it with"
    say "adding Rust's $WASM_TARGET target"
    rustup target add "$WASM_TARGET"
}

need_lints() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
    command -v rustup >/dev/null || die "this Rust lacks rustfmt or clippy and there is no rustup to add them with"
    say "adding rustfmt and clippy"
    rustup component add rustfmt clippy
}

# Sets WASM_BINDGEN to a wasm-bindgen of the very version that the crate is built with: the two must match. Tests need its
# "-test-runner" too.
need_wasm_bindgen() {
    need_rust
    local version root
    version=$(awk '$0 == "name = \"wasm-bindgen\"" { getline; gsub(/"/, ""); print $3 }' Cargo.lock)
    [ -n "$version" ] || die "Cargo.lock names no wasm-bindgen"
    root="$CACHE/wasm-bindgen-$version"
    for WASM_BINDGEN in "$root/bin/wasm-bindgen" "$(command -v wasm-bindgen || true)"; do
        [ -n "$WASM_BINDGEN" ] && [ "$("$WASM_BINDGEN" --version 2>/dev/null)" = "wasm-bindgen $version" ] &&
            [ -x "$WASM_BINDGEN${1:-}" ] && return
    done
    say "installing wasm-bindgen $version into $root (once; a few minutes)"
    # A light build: it rewrites one file in a second, however it was compiled.
    CARGO_TARGET_DIR="$CACHE/build" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install wasm-bindgen-cli --version "$version" --no-default-features --force --bin wasm-bindgen \
        ${1:+--bin "wasm-bindgen$1"} --root "$root" --quiet
    rm -rf "$CACHE/build"
    WASM_BINDGEN="$root/bin/wasm-bindgen"
}

need_npm() {
    need_node
    local folder=$1
    [ "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ] && return
    say "installing the npm packages of $folder/"
    (cd "$folder" && npm ci --no-audit --no-fund --loglevel=error)
    touch "$folder/node_modules/.package-lock.json"
}

apt_install() {
    local why=$1 as_root=()
    shift
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; } ||
        die "$why: install $* (Debian's names), then run this again"
    say "installing $* ($why)"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

find_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
        [ -n "$name" ] && CHROMIUM=$(command -v "$name") && export CHROMIUM && return
    done
    return 1
}

need_chromium() {
    find_chromium && return
    apt_install "the browser tests need Chromium" chromium fonts-dejavu-core
    find_chromium || die "Chromium was installed but is not on the PATH: set CHROMIUM to its path"
}

need_vulkan() {
    [ "$(uname -s)" = Linux ] || return 0
    if [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] ||
        compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null; then
        [ -n "$( (ldconfig -p 2>/dev/null || /sbin/ldconfig -p) | grep -F libvulkan.so.1)" ] && return
    fi
    apt_install "the WebGPU tests need a Vulkan driver; this one computes on the processor" mesa-vulkan-drivers libvulkan1
}

# ---- the commands ----------------------------------------------------------------------------------------------------

build() {
    need_wasm_target
    need_wasm_bindgen
    need_npm tools
    say "compiling the crate for the browser"
    cargo build --release --target "$WASM_TARGET" --lib
    say "and once more, for browsers with relaxed SIMD"
    # In a folder of its own: other flags make other files of the same name.
    local relaxed=(--release --target "$WASM_TARGET" --lib --target-dir "$TARGET/relaxed"
        --config "target.$WASM_TARGET.rustflags=['-C', 'target-feature=+relaxed-simd']")
    local built="$TARGET/relaxed/$WASM_TARGET/release/tintype.wasm"
    cargo build "${relaxed[@]}"
    cp "$built" "$TARGET/relaxed/one-thread.wasm"
    say "and the crate alone, for pages whose workers may share memory"
    # The standard library was compiled for one thread, which the linker has to be told not to mind: src/executor/cpu/pool.rs says why
    # that is right.
    local shared=(--shared-memory --import-memory --max-memory=4294967296 --no-check-features --export=__stack_pointer
        --export=__wasm_init_tls --export=__tls_size --export=__tls_align --export=__tls_base)
    cargo rustc "${relaxed[@]}" --features threads --crate-type cdylib -- "${shared[@]/#/-Clink-arg=}"
    cp "$built" "$TARGET/relaxed/threads.wasm"
    say "putting dist/ together"
    WASM_BINDGEN="$WASM_BINDGEN" node tools/dist.mjs "$TARGET/$WASM_TARGET/release/tintype.wasm" \
        "$TARGET/relaxed/one-thread.wasm" "$TARGET/relaxed/threads.wasm" "$TARGET/tintype-web"
}

run() {
    local port=8080 plain=()
    while [ $# -gt 0 ]; do
        case $1 in
        --port)
            port=${2:?--port wants a number}
            shift 2
            ;;
        --port=*)
            port=${1#--port=}
            shift
            ;;
        --plain)
            plain=(--plain)
            shift
            ;;
        *) die "run knows --port N and --plain, not $1" ;;
        esac
    done
    build
    say "serving dist/"
    exec node tools/serve.mjs dist --port "$port" "${plain[@]}"
}

test_rust() {
    need_rust
    need_vulkan
    say "testing the crate"
    cargo test --no-fail-fast "$@"
}

# The kernels have other bodies there than natively: their tests are compiled as the page's two builds are.
test_wasm() {
    need_wasm_target
    need_node
    need_wasm_bindgen -test-runner
    local feature compiled flag=--experimental-wasm-relaxed-simd
    # Node 20 has relaxed SIMD if it is told to; those after it know no such flag.
    node "$flag" -e "" 2>/dev/null && export NODE_ARGS="$flag"
    for feature in simd128 relaxed-simd; do
        say "testing the CPU's kernels in Node $(node --version), with $feature"
        # Only the crate itself is compiled twice.
        compiled=$(cargo rustc --profile test --lib --target "$WASM_TARGET" --message-format json-render-diagnostics \
            -- -C target-feature="+$feature" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
        "$WASM_BINDGEN-test-runner" "$compiled" "$@"
    done
}

test_web() {
    need_chromium
    build
    need_npm tests/web
    say "testing in $("$CHROMIUM" --version 2>/dev/null)"
    # One file at a time: each starts browsers that compute with every core there is.
    node --test --test-concurrency=1 --test-reporter=spec "$@" tests/web/*.test.mjs
}

bench_web() {
    need_chromium
    build
    need_npm tests/web
    say "measuring in $("$CHROMIUM" --version 2>/dev/null)"
    node "tests/web/$1-bench.mjs" "${@:2}"
}

bench_store() { bench_web store "$@"; }

bench_real() { bench_web real "$@"; }

bench_pictures() { bench_web pictures "$@"; }

bench_cpu() { bench_web cpu "$@"; }

bench_page() { bench_web gpurace page "$@"; }

bench_race() { bench_web gpurace race "$@"; }

bench_unet() {
    need_rust
    say "measuring on this machine's CPU, beside candle-transformers"
    cargo bench --bench unet
}

check() {
    need_wasm_target
    need_lints
    need_npm tools
    say "formatting (cargo fmt)"
    cargo fmt --check
    say "lints, native (clippy)"
    cargo clippy --all-targets -- -D warnings
    say "lints, browser (clippy)"
    cargo clippy --target "$WASM_TARGET" --lib -- -D warnings
    cargo clippy --target "$WASM_TARGET" --lib --features threads -- -D warnings
    say "documentation (cargo doc)"
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
    say "types of the JavaScript API (tsc)"
    node tools/node_modules/typescript/bin/tsc --project tests/web/types
    say "lock files name no registry's address"
    if grep -n '"resolved"' tools/package-lock.json tests/web/package-lock.json; then
        die "make the lock file again with omit-lockfile-registry-resolved=true (the .npmrc beside it says so)"
    fi
    say "checks passed"
}

command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
build) build ;;
run) run "$@" ;;
check) check ;;
bench)
    what=${1:-page}
    [ $# -eq 0 ] || shift
    case $what in
    page | race | cpu | unet | store | real | pictures) "bench_$what" "$@" ;;
    -*) bench_page "$what" "$@" ;;
    *) die "bench knows page, race, cpu, unet, store, real and pictures, not $what" ;;
    esac
    ;;
test)
    part=${1:-}
    case $part in
    rust | wasm | web)
        shift
        "test_$part" "$@"
        ;;
    "")
        test_rust
        test_wasm
        test_web
        ;;
    *) die "test knows rust, wasm and web, not $part" ;;
    esac
    ;;
help | -h | --help) usage ;;
*)
    usage >&2
    die "no such command: $command"
    ;;
esac
