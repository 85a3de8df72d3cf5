//! Doubly linked lists whose nodes live in one vector, so that a node leaves its list in constant time and a
//! vacant place is used again. A node is in one list at most.

/// No node.
const NONE: u32 = u32::MAX;

/// The ends of a list. Its nodes live in an [`Arena`].
#[derive(Clone, Copy, Debug)]
pub struct List {
    first: u32,
    last: u32,
    len: usize,
}

/// The nodes of many lists.
pub struct Arena<T> {
    nodes: Vec<Node<T>>,
    vacant: Vec<u32>,
}

struct Node<T> {
    previous: u32,
    next: u32,
    value: Option<T>,
}

impl Default for List {
    fn default() -> Self {
        List { first: NONE, last: NONE, len: 0 }
    }
}

impl List {
    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The node that has been in it for the longest time.
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { nodes: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Arena<T> {
    /// A new node, in no list yet. `None` if there are 2^32 - 1 nodes.
    pub fn insert(&mut self, value: T) -> Option<u32> {
        let node = Node { previous: NONE, next: NONE, value: Some(value) };
        if let Some(at) = self.vacant.pop() {
            *self.nodes.get_mut(at as usize)? = node;
            return Some(at);
        }
        let at = u32::try_from(self.nodes.len()).ok().filter(|at| *at != NONE)?;
        self.nodes.push(node);
        Some(at)
    }

    /// Takes a node out that is in no list (any more).
    pub fn remove(&mut self, at: u32) -> Option<T> {
        let value = self.nodes.get_mut(at as usize)?.value.take()?;
        self.vacant.push(at);
        Some(value)
    }

    /// The value of a node.
    pub fn get(&self, at: u32) -> Option<&T> {
        self.nodes.get(at as usize)?.value.as_ref()
    }

    /// Mutable access to the value of a node.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.nodes.get_mut(at as usize)?.value.as_mut()
    }

    /// Puts a node that is in no list at the end of this one.
    pub fn append(&mut self, list: &mut List, at: u32) {
        let Some(node) = self.nodes.get_mut(at as usize) else { return };
        (node.previous, node.next) = (list.last, NONE);
        match self.nodes.get_mut(list.last as usize) {
            Some(last) => last.next = at,
            None => list.first = at,
        }
        list.last = at;
        list.len = list.len.saturating_add(1);
    }

    /// Takes a node out of the list that it is in.
    pub fn detach(&mut self, list: &mut List, at: u32) {
        let Some(node) = self.nodes.get_mut(at as usize) else { return };
        let (previous, next) = (node.previous, node.next);
        (node.previous, node.next) = (NONE, NONE);
        match self.nodes.get_mut(previous as usize) {
            Some(node) => node.next = next,
            None => list.first = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(node) => node.previous = previous,
            None => list.last = previous,
        }
        list.len = list.len.saturating_sub(1);
    }

    /// Whether there is no node.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == self.vacant.len()
    }

    /// The nodes of a list, the oldest first.
    #[cfg(test)]
    pub fn of(&self, list: &List) -> impl Iterator<Item = &T> {
        let mut at = list.first;
        std::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            node.value.as_ref()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against vectors, with fixed steps without a pattern (xorshift64).
    #[test]
    fn behaves_like_vectors() {
        let (mut arena, mut lists) = (Arena::default(), [List::default(); 3]);
        let mut model: [Vec<(u32, usize)>; 3] = Default::default();
        let mut noise = 1_u64;
        for value in 0..20_000_usize {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            let (from, to) = ((noise % 4) as usize, (noise / 4 % 3) as usize);
            let pick = (noise / 16) as usize;
            if from == 3 || model[from].is_empty() {
                let at = arena.insert(value).expect("room");
                arena.append(&mut lists[to], at);
                model[to].push((at, value));
            } else {
                // One leaves its list, for another one or for good.
                let index = pick % model[from].len();
                let (at, value) = model[from].remove(index);
                arena.detach(&mut lists[from], at);
                if noise & 1 << 40 == 0 {
                    assert_eq!(arena.remove(at), Some(value));
                    assert_eq!((arena.remove(at), arena.get(at)), (None, None));
                } else {
                    arena.append(&mut lists[to], at);
                    model[to].push((at, value));
                }
            }
            for (list, model) in lists.iter().zip(&model) {
                let values: Vec<usize> = model.iter().map(|(_, value)| *value).collect();
                assert_eq!(arena.of(list).copied().collect::<Vec<_>>(), values);
                assert_eq!(list.len(), model.len());
                assert_eq!(list.first(), model.first().map(|(at, _)| *at));
            }
            assert_eq!(arena.is_empty(), model.iter().all(Vec::is_empty));
        }
    }
}
