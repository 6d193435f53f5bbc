//! A heap slice that never moves and that the kernel may write through pointers taken once: the memory behind the
//! message headers of a batch.

use std::ptr::NonNull;

/// Owns its elements like a boxed slice, but holds a raw pointer: a `Box` would claim exclusive access each time it
/// is touched, which the pointers stored in message headers contradict.
pub(crate) struct Fixed<T> {
    slice: NonNull<[T]>,
}

impl<T: Clone> Fixed<T> {
    pub(crate) fn new(value: T, len: usize) -> Self {
        let boxed = vec![value; len].into_boxed_slice();
        let raw = Box::into_raw(boxed);
        // SAFETY: `Box::into_raw` never returns null.
        Self { slice: unsafe { NonNull::new_unchecked(raw) } }
    }
}

impl<T> Fixed<T> {
    pub(crate) fn len(&self) -> usize {
        self.slice.len()
    }

    /// A pointer to the element, valid for reads and writes for as long as `self` lives.
    ///
    /// # Panics
    /// When `at` is outside the slice.
    pub(crate) fn pointer(&self, at: usize) -> *mut T {
        assert!(at < self.len(), "element outside a fixed slice");
        // SAFETY: the index was checked, so the result stays inside the allocation.
        unsafe { self.slice.cast::<T>().as_ptr().add(at) }
    }

    pub(crate) fn get(&self, at: usize) -> &T {
        // SAFETY: the pointer is in bounds and initialised; the kernel writes only during calls that borrow the batch
        // mutably, so nobody writes while this borrow lives.
        unsafe { &*self.pointer(at) }
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> &mut T {
        // SAFETY: as in `get`, and the exclusive borrow of `self` makes it the only one.
        unsafe { &mut *self.pointer(at) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: the whole slice is initialised and owned, and borrowed exclusively through `self`.
        unsafe { self.slice.as_mut() }
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Box::into_raw` in `new` and is given back once.
        drop(unsafe { Box::from_raw(self.slice.as_ptr()) });
    }
}

// SAFETY: the slice is owned by this value alone, as a boxed slice would be.
unsafe impl<T: Send> Send for Fixed<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_stay_valid_while_the_owner_moves() {
        let fixed = Fixed::new(7_u64, 3);
        let second = fixed.pointer(1);
        let mut moved = Box::new(fixed);
        // SAFETY: `moved` still owns the slice.
        unsafe { second.write(8) };
        assert_eq!((*moved.get(0), *moved.get(1), *moved.get(2)), (7, 8, 7));
        *moved.get_mut(1) = 9;
        // SAFETY: as above, and no reference is alive.
        assert_eq!(unsafe { second.read() }, 9);
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn a_pointer_past_the_end_is_refused() {
        let _ = Fixed::new(0_u8, 2).pointer(2);
    }
}
