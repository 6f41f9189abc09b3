//! A bounded table whose entries are named by numbers that are not used again soon.

/// Names an entry: its place, and how often that place was given away before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    place: u32,
    generation: u16,
}

impl Id {
    /// Packs it below 2^48.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.place) << 16 | u64::from(self.generation)
    }

    /// Unpacks it from the lowest 48 bits.
    pub(crate) fn from_bits(bits: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
        Self {
            place: u32::from_be_bytes([a, b, c, d]),
            generation: u16::from_be_bytes([e, f]),
        }
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<(u16, Option<T>)>,
    free: Vec<u32>,
    most: u32,
    used: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            most,
            used: 0,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used >= self.most
    }

    pub(crate) fn len(&self) -> u32 {
        self.used
    }

    /// Adds an entry; none when the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Option<Id> {
        if self.is_full() {
            return None;
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.entries.len()).ok()?;
                self.entries.push((0, None));
                place
            }
        };
        let (generation, entry) = self.entries.get_mut(usize::try_from(place).ok()?)?;
        *entry = Some(value);
        self.used += 1;
        Some(Id {
            place,
            generation: *generation,
        })
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let entry = self.entries.get_mut(usize::try_from(id.place).ok()?)?;
        match entry {
            (generation, Some(value)) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        let (generation, entry) = self.entries.get_mut(usize::try_from(id.place).ok()?)?;
        if *generation != id.generation {
            return None;
        }
        let value = entry.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(id.place);
        self.used -= 1;
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.entries
            .iter()
            .zip(0_u32..)
            .filter_map(|((generation, value), place)| {
                let id = Id {
                    place,
                    generation: *generation,
                };
                Some((id, value.as_ref()?))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_finds_nothing() {
        let mut slab = Slab::new(2);
        let first = slab.insert('a').unwrap();
        let second = slab.insert('b').unwrap();
        assert_eq!(slab.insert('c'), None);
        assert_eq!(slab.remove(first), Some('a'));
        let third = slab.insert('d').unwrap();
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(third), Some(&mut 'd'));
        assert_eq!(Id::from_bits(third.to_bits()), third);
        assert_eq!(
            slab.iter().map(|(id, _)| id).collect::<Vec<_>>(),
            [third, second]
        );
        assert_eq!(slab.len(), 2);
    }
}
