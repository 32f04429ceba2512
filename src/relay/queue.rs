//! Connections in the order in which they came, any of which may leave at any time.

use crate::net::reactor::Key;
use std::collections::BTreeMap;

/// First in, first out; leaving from the middle costs no more than O(log n).
pub(super) struct Queue<T = Key> {
    order: BTreeMap<u64, T>,
    next: u64,
}

/// A place in one queue. It is held by the state of the connection that stands there, and by nobody else.
#[derive(Debug)]
pub(crate) struct Ticket(u64);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { order: BTreeMap::new(), next: 0 }
    }
}

impl<T: Copy> Queue<T> {
    pub(super) fn join(&mut self, member: T) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.order.insert(ticket, member);
        Ticket(ticket)
    }

    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let left = self.order.remove(&ticket.0);
        debug_assert!(left.is_some(), "a ticket of another queue");
        left
    }

    /// Who has been here longest.
    pub(super) fn first(&self) -> Option<T> {
        self.order.first_key_value().map(|(_, &member)| member)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = T> {
        self.order.values().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_here_is_first_whoever_leaves() {
        let mut queue = Queue::default();
        let a = queue.join(10);
        let b = queue.join(20);
        let _c = queue.join(30);
        queue.leave(b);
        assert_eq!((queue.first(), queue.len()), (Some(10), 2));
        queue.leave(a);
        assert_eq!(queue.iter().collect::<Vec<_>>(), [30]);
    }
}
