// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conditions that all have to hold.

use std::sync::OnceLock;

/// Whether the client may have what has this name.
type Filter = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Filters of a monitor, of which each name has to pass all. They can only be added.
///
/// A list whose end is set once: filters are asked for each command and event, without a lock.
#[derive(Default)]
pub(crate) struct Filters(OnceLock<Box<Link>>);

struct Link {
    filter: Filter,
    next: Filters,
}

impl Filters {
    pub(crate) fn add(&self, filter: Filter) {
        let mut link = Box::new(Link { filter, next: Filters::default() });
        let mut end = self;
        // Only a cell that is set refuses a value: another thread may have been faster.
        while let Err(refused) = end.0.set(link) {
            link = refused;
            end = end.0.get().map_or(end, |taken| &taken.next);
        }
    }

    pub(crate) fn accept(&self, name: &str) -> bool {
        let mut next = self.0.get();
        while let Some(link) = next {
            if !(link.filter)(name) {
                return false;
            }
            next = link.next.0.get();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_to_pass_all_filters_in_whatever_order() {
        let filters = Filters::default();
        assert!(filters.accept("a"));
        filters.add(Box::new(|name| name.starts_with('a')));
        filters.add(Box::new(|name| name.ends_with('b')));
        filters.add(Box::new(|_| true));
        assert_eq!(["ab", "a", "b"].map(|name| filters.accept(name)), [true, false, false]);
    }

    #[test]
    fn none_is_lost_that_is_added_at_the_same_time() {
        let filters = Filters::default();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let filters = &filters;
                scope.spawn(move || filters.add(Box::new(move |name| name != number.to_string())));
            }
        });
        assert!((0..8).all(|number: i32| !filters.accept(&number.to_string())));
        assert!(filters.accept("8"));
    }
}
