//! The names that the host calls: all the unsafe code of this package.
#![allow(
    unsafe_code,
    reason = "`no_mangle` could collide with another symbol of the same name. Each of these three stands once in the module, \
              which links no C. Nothing is dereferenced here: the host reads and writes the memory, between two calls and \
              within the lengths that it was told, and WebAssembly keeps it within the module's memory."
)]

use std::cell::RefCell;

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Makes room for a call of `length` bytes and says where to write it. The place holds until the next `call`.
#[unsafe(no_mangle)]
extern "C" fn input(length: usize) -> *mut u8 {
    INPUT.with_borrow_mut(|input| {
        input.clear();
        input.resize(length, 0);
        input.as_mut_ptr()
    })
}

/// Answers the call that was written, and says how long the answer is.
#[unsafe(no_mangle)]
extern "C" fn call() -> usize {
    let given = INPUT.take();
    let answer = crate::answer(&String::from_utf8_lossy(&given));
    OUTPUT.replace(answer);
    OUTPUT.with_borrow(String::len)
}

/// Where the last answer lies. The place holds until the next `call`.
#[unsafe(no_mangle)]
extern "C" fn output() -> *const u8 {
    OUTPUT.with_borrow(|output| output.as_ptr())
}
