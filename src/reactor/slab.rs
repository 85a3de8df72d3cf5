//! Numbered slots for sessions, with a generation in every key.
//!
//! A slot is used again; a key is not. So an event, a DNS answer or an alarm that was meant for a session
//! which has ended finds nothing, instead of finding the session that now has its slot.

/// The identity of a session: slot and generation. The key of an ended session is not handed out again during
/// the next 2^29 uses of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    slot: u32,
    generation: u32,
}

/// Bits of a generation, so that a key and two further facts fit into a 64-bit token.
const GENERATION_BITS: u32 = 29;

impl Key {
    /// The key as a number of 61 bits.
    pub fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The key of a value with this slot and generation, if there has ever been one.
    pub fn new(slot: u32, generation: u32) -> Self {
        Key { slot, generation }
    }

    /// The number of the slot.
    pub fn slot(self) -> u32 {
        self.slot
    }

    /// How many values the slot has had before, modulo 2^29.
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// Reverses [`Key::pack`].
    pub const fn unpack(bits: u64) -> Self {
        let slot = bits as u32;
        let generation = (bits >> 32) as u32 & ((1 << GENERATION_BITS) - 1);
        Key { slot, generation }
    }
}

/// Values in numbered slots. Insert, look-up and removal take constant time.
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// Vacant slots. The one vacated last is used first, because its memory is still in the cache.
    vacant: Vec<u32>,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// The number of values.
    pub fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Whether the slab holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of slots, vacant ones included.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// The value in slot `number`, with its key; `None` if the slot is vacant.
    pub fn at(&self, number: u32) -> Option<(Key, &T)> {
        let Slot { generation, value } = self.slots.get(number as usize)?;
        let key = Key { slot: number, generation: *generation };
        value.as_ref().map(|value| (key, value))
    }

    /// Puts a value into a slot. `None` if all 2^32 slots are taken.
    pub fn insert(&mut self, value: T) -> Option<Key> {
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot { generation: 0, value: None });
                slot
            }
        };
        let entry = self.slots.get_mut(slot as usize)?;
        let key = Key { slot, generation: entry.generation };
        entry.value = Some(value);
        Some(key)
    }

    /// The value; `None` if the key is stale.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.slots
            .get(key.slot as usize)
            .filter(|slot| slot.generation == key.generation)
            .and_then(|slot| slot.value.as_ref())
    }

    /// Mutable access to the value; `None` if the key is stale.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slots
            .get_mut(key.slot as usize)
            .filter(|slot| slot.generation == key.generation)
            .and_then(|slot| slot.value.as_mut())
    }

    /// Removes the value and returns it. The key is stale from then on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = (slot.generation + 1) & ((1 << GENERATION_BITS) - 1);
        self.vacant.push(key.slot);
        Some(value)
    }

    /// All values with their keys, in order of slots.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..).zip(&self.slots).filter_map(|(number, slot)| {
            let key = Key { slot: number, generation: slot.generation };
            slot.value.as_ref().map(|value| (key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_stale_after_removal_even_when_its_slot_is_used_again() {
        let mut slab = Slab::default();
        let first = slab.insert("first").expect("room");
        assert_eq!(slab.remove(first), Some("first"));
        assert_eq!(slab.remove(first), None);
        let second = slab.insert("second").expect("room");
        assert_eq!(second.slot, first.slot);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut "second"));
        assert_eq!(slab.len(), 1);
    }

    proptest! {
        #![proptest_config(support::property::config(256))]

        #[test]
        fn keys_survive_packing(slot: u32, generation in 0u32..1 << GENERATION_BITS) {
            let key = Key { slot, generation };
            prop_assert_eq!(Key::unpack(key.pack()), key);
            prop_assert!(key.pack() < 1 << 61);
        }

        #[test]
        fn behaves_like_a_list(steps in prop::collection::vec(any::<Option<u8>>(), 0..200)) {
            let (mut slab, mut model) = (Slab::default(), Vec::new());
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    Some(pick) if !model.is_empty() => {
                        let (key, value) = model.swap_remove(usize::from(pick) % model.len());
                        prop_assert_eq!(slab.remove(key), Some(value));
                        prop_assert_eq!(slab.get(key), None);
                    }
                    _ => model.push((slab.insert(value).expect("room"), value)),
                }
                prop_assert_eq!(slab.len(), model.len());
                for (key, value) in &model {
                    prop_assert_eq!(slab.get_mut(*key), Some(&mut value.clone()));
                }
                prop_assert_eq!(slab.iter().count(), model.len());
            }
        }
    }
}
