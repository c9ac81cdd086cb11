//! Threads that share a unit's work: each part of it writes what no other part writes, so the result does not depend on how many
//! there are.
#![allow(unsafe_code, reason = "threads of wasm share nothing but its memory")]

use crate::error::Result;
use std::ops::Range;

/// Parts for each thread: one that is held up leaves some to the others.
const PARTS: usize = 2;
/// Parts that are given out at once: the page's counter has twelve bits for them.
const MOST: usize = 4000;

/// The threads. They are the same for all who have this; it says for how many work is cut.
#[derive(Clone, Copy)]
pub(super) struct Pool {
    threads: usize,
}

impl Pool {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
        }
    }

    /// In how many parts work is cut at most.
    pub(super) fn parts(self) -> usize {
        if self.threads == 1 { 1 } else { self.threads * PARTS }
    }

    /// For each part of the work its own memory: what is made in parts itself cannot report that there is none.
    pub(super) fn own<S>(self, one: impl Fn() -> Result<S>) -> Result<Vec<S>> {
        (0..self.parts()).map(|_| one()).collect()
    }

    /// Cuts a range at multiples of `step` from its start, in a few parts for each thread.
    pub(super) fn cut(self, range: Range<usize>, step: usize) -> Vec<Range<usize>> {
        let steps = range.len().div_ceil(step.max(1));
        let parts = steps.min(self.parts());
        let at = move |i: usize| range.end.min(range.start + steps * i / parts * step);
        (0..parts).map(|i| at(i)..at(i + 1)).collect()
    }

    /// `f(i, item)` for each item, several at once. Returns when all have been done.
    pub(super) fn each<T: Send>(self, items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
        if self.threads == 1 || items.len() < 2 {
            return items.iter_mut().enumerate().for_each(|(i, item)| f(i, item));
        }
        for (some, first) in items.chunks_mut(MOST).zip((0..).step_by(MOST)) {
            at_once(some, |i, item| f(first + i, item));
        }
    }

    /// `f(i, item, own)` for each item, several at once. Each of `own`, of which there is one at least, is lent to some of the items,
    /// one after the other.
    pub(super) fn each_with<T: Send, S: Send>(
        self,
        items: &mut [T],
        own: &mut [S],
        f: impl Fn(usize, &mut T, &mut S) + Sync,
    ) {
        let some = items.len().div_ceil(own.len().max(1)).max(1);
        let mut parts: Vec<_> = items.chunks_mut(some).zip(own).collect();
        self.each(&mut parts, |part, (items, own)| {
            for (i, item) in (part * some..).zip(items.iter_mut()) {
                f(i, item, own);
            }
        });
    }

    /// `f(rows, elements)` for some rows of `columns` elements each, several times at once, until all rows have been done.
    pub(super) fn rows<T: Send>(self, to: &mut [T], columns: usize, f: impl Fn(Range<usize>, &mut [T]) + Sync) {
        let mut left = to;
        let cut = self.cut(0..left.len() / columns.max(1), 1);
        let part = |rows: Range<usize>| {
            let (part, rest) = std::mem::take(&mut left).split_at_mut(rows.len() * columns);
            left = rest;
            (rows, part)
        };
        let mut parts: Vec<_> = cut.into_iter().map(part).collect();
        self.each(&mut parts, |_, (rows, part)| f(rows.clone(), part));
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn at_once<T: Send>(items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
    use rayon::prelude::*;
    let each = items.par_iter_mut().enumerate().with_max_len(1);
    each.for_each(|(i, item)| f(i, item));
}

/// Threads that there are without being asked for.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn available() -> usize {
    rayon::current_num_threads()
}

#[cfg(target_arch = "wasm32")]
pub(super) fn available() -> usize {
    1
}

#[cfg(all(target_arch = "wasm32", not(feature = "threads")))]
fn at_once<T: Send>(items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
    items.iter_mut().enumerate().for_each(|(i, item)| f(i, item));
}

#[cfg(all(target_arch = "wasm32", feature = "threads"))]
use web::at_once;

/// The threads are workers, each with an instance of this module over the same memory, and are told what to do by JavaScript, which
/// has the atomic operations that a stable compiler does not give. The standard library believes that there is one thread: what is
/// done in parts may use no lock, no thread-local and no counted reference of it. Allocating is taken care of.
#[cfg(all(target_arch = "wasm32", feature = "threads"))]
mod web {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::ffi::c_void;
    use std::marker::PhantomData;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    #[link(wasm_import_module = "../threads.js")]
    unsafe extern "C" {
        /// Has `tintype_part(job, i)` called for each `i` below `parts`, by all threads.
        fn run(job: *const c_void, parts: usize);
        /// Waits for the allocator, and takes it.
        safe fn take();
        /// Gives it back.
        safe fn give();
    }

    struct Job<'a>(&'a (dyn Fn(usize) + Sync));

    /// Whether other threads are at work. It changes only while they are not.
    static AT_ONCE: AtomicBool = AtomicBool::new(false);

    /// One of several, each given to one thread.
    struct Items<'a, T>(*mut T, PhantomData<&'a mut [T]>);

    // SAFETY: each item is lent to one thread at a time, and may be sent there.
    unsafe impl<T: Send> Sync for Items<'_, T> {}

    impl<T> Items<'_, T> {
        fn at(&self, i: usize) -> *mut T {
            self.0.wrapping_add(i)
        }
    }

    pub(super) fn at_once<T: Send>(items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
        let (all, count) = (Items(items.as_mut_ptr(), PhantomData), items.len());
        let part = |i: usize| {
            assert!(i < count, "part {i} of a job of {count}");
            // SAFETY: there is such an item, and each is given out once.
            f(i, unsafe { &mut *all.at(i) });
        };
        let job = Job(&part);
        // Work within a part would be for the thread that does the part.
        if AT_ONCE.swap(true, Relaxed) {
            return (0..count).for_each(part);
        }
        // SAFETY: the job outlives the call, which ends when all parts have.
        unsafe { run((&raw const job).cast(), count) };
        AT_ONCE.store(false, Relaxed);
    }

    /// The lowest address of so many bytes for a thread's stack; null where there is no room. They are never given back: a thread ends
    /// with this module.
    #[unsafe(no_mangle)]
    extern "C" fn tintype_stack(bytes: usize) -> *mut u128 {
        let mut stack = Vec::<u128>::new();
        match stack.try_reserve_exact(bytes / size_of::<u128>()) {
            Ok(()) => stack.leak().as_mut_ptr(),
            Err(_) => std::ptr::null_mut(),
        }
    }

    /// Does part `i` of a job.
    ///
    /// # Safety
    /// `job` is what `run` was given, which has not returned, and it has that part, which nobody else does.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn tintype_part(job: *const c_void, i: usize) {
        // SAFETY: as this function's.
        unsafe { (*job.cast::<Job<'_>>()).0(i) }
    }

    /// The standard library's allocator for one thread, for several.
    struct Allocator;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    fn alone<T>(f: impl FnOnce() -> T) -> T {
        if !AT_ONCE.load(Relaxed) {
            return f();
        }
        take();
        let done = f();
        give();
        done
    }

    // SAFETY: one thread at a time is in the allocator that all of it is left to.
    unsafe impl GlobalAlloc for Allocator {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY (here and below): the caller's promises are passed on.
            alone(|| unsafe { System.alloc(layout) })
        }

        // `alloc_zeroed` is left to what it is made of: only the first half of it has to wait.

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            alone(|| unsafe { System.dealloc(at, layout) });
        }

        unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            alone(|| unsafe { System.realloc(at, layout, size) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn ranges_are_cut_at_steps_and_cover_all() {
        for threads in [1, 2, 3, 8] {
            for (start, len, step) in [(0, 0, 8), (0, 1, 8), (16, 8, 8), (8, 77, 8), (0, 320, 16), (5, 100, 1)] {
                let (pool, range) = (Pool::new(threads), start..start + len);
                let mut next = range.start;
                for part in pool.cut(range.clone(), step) {
                    assert!(part.start == next && !part.is_empty() && (part.start - start).is_multiple_of(step));
                    next = part.end;
                }
                assert_eq!(next, range.end);
            }
        }
    }

    #[test]
    fn each_item_is_done_once() {
        for threads in [1, 2, 5] {
            let mut items = vec![0; 1000];
            Pool::new(threads).each(&mut items, |i, item| *item += i);
            Pool::new(threads).rows(&mut items, 10, |rows, part| {
                part.iter_mut().zip(rows.start * 10..).for_each(|(item, i)| *item += i);
            });
            assert!(items.iter().enumerate().all(|(i, item)| *item == 2 * i));
            let mut own = Pool::new(threads).own(|| Ok(0)).unwrap();
            Pool::new(threads).each_with(&mut items, &mut own, |i, item, seen| {
                *item -= i;
                *seen += 1;
            });
            assert!(items.iter().enumerate().all(|(i, item)| *item == i) && own.iter().sum::<usize>() == items.len());
        }
    }
}
