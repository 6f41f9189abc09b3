//! Lookup, overlap and widths of the bus.

use proptest::prelude::*;

use super::*;

/// Answers with a mark and the offset, takes writes to its last byte only.
#[derive(Debug, Default)]
struct Probe {
    mark: u64,
    writes: Vec<(u64, Width, u64)>,
}

impl BusDevice for Probe {
    fn read(&mut self, offset: u64, _: Width) -> Result<u64, BadAccess> {
        if offset == 3 {
            Err(BadAccess)
        } else {
            Ok(self.mark << 8 | offset)
        }
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) -> Result<(), BadAccess> {
        self.writes.push((offset, width, value));
        Ok(())
    }
}

fn probe(mark: u64) -> Arc<Mutex<Probe>> {
    Arc::new(Mutex::new(Probe {
        mark,
        writes: Vec::new(),
    }))
}

fn range(start: u64, len: u64) -> AddressRange {
    AddressRange { start, len }
}

fn read<const N: usize>(bus: &Bus, at: u64) -> [u8; N] {
    let mut data = [0x55; N];
    bus.read(at, &mut data);
    data
}

#[test]
fn a_movable_device_answers_where_it_is() {
    let (first, second, place) = (probe(1), probe(2), Place::nowhere());
    let (other, still) = (Place::nowhere(), probe(3));
    let mut builder = BusBuilder::new("memory");
    builder.attach("still", range(0x100, 0x10), still).unwrap();
    builder.attach_movable("first", place.clone(), 0x10, first);
    builder.attach_movable("second", other.clone(), 0x10, second);
    let bus = builder.freeze();
    assert_eq!(read(&bus, 0x200), [0xff; 2]);
    place.set(Some(0x200));
    other.set(Some(0x208));
    assert_eq!(read(&bus, 0x204), [4, 1]);
    assert_eq!(read(&bus, 0x20c), [12, 1], "the first of both");
    assert_eq!(read(&bus, 0x210), [8, 2]);
    assert_eq!(read::<2>(&bus, 0x217), [0xff; 2], "over the end");
    place.set(Some(0x0fc));
    assert_eq!(read(&bus, 0x0fe), [2, 1]);
    assert_eq!(read(&bus, 0x104), [4, 3], "what stays comes first");
    assert_eq!(read(&bus, 0x20c), [4, 2]);
    let devices: Vec<_> = bus.devices().map(|(name, at)| (name, at.start)).collect();
    assert_eq!(
        devices,
        [("still", 0x100), ("first", 0xfc), ("second", 0x208)]
    );
    place.set(None);
    assert_eq!(read(&bus, 0x0fe), [0xff; 2]);
    assert_eq!(place.get(), None);
}

#[test]
fn accesses_find_their_device_and_offset() {
    let device = probe(0xab);
    let mut builder = BusBuilder::new("ports");
    builder
        .attach("b", range(0x100, 8), device.clone())
        .unwrap();
    builder.attach("a", range(0x10, 1), probe(1)).unwrap();
    builder.attach("c", range(0x108, 8), probe(2)).unwrap();
    let bus = builder.freeze();
    assert_eq!(read(&bus, 0x104), [0x04, 0xab]);
    assert_eq!(read(&bus, 0x10f), [7]);
    assert_eq!(read(&bus, 0x100), [0, 0xab, 0, 0, 0, 0, 0, 0]);
    bus.write(0x106, &[0x34, 0x12]);
    assert_eq!(device.lock().unwrap().writes, [(6, Width::Word, 0x1234)]);
    assert_eq!(bus.unclaimed(), 0);
    assert_eq!(
        bus.devices().map(|(name, _)| name).collect::<String>(),
        "abc"
    );
}

#[test]
fn what_nobody_answers_reads_as_ones_and_is_counted() {
    let device = probe(1);
    let mut builder = BusBuilder::new("ports");
    builder
        .attach("b", range(0x100, 8), device.clone())
        .unwrap();
    let bus = builder.freeze();
    assert_eq!(read(&bus, 0xff), [0xff; 1]);
    assert_eq!(read(&bus, 0xff), [0xff; 2], "starts before the device");
    assert_eq!(read(&bus, 0x107), [0xff; 2], "runs over its end");
    assert_eq!(read(&bus, 0x103), [0xff; 4], "refused by the device");
    assert_eq!(read(&bus, 0x100), [0xff; 3], "no such width");
    assert_eq!(read(&bus, 0x100), [0xff; 16], "no such width");
    assert_eq!(read(&bus, u64::MAX), [0xff; 8]);
    bus.write(0x108, &[1]);
    bus.write(0x100, &[]);
    assert_eq!(bus.unclaimed(), 9);
    assert!(device.lock().unwrap().writes.is_empty());
}

#[test]
fn overlaps_and_empty_ranges_are_refused() {
    let mut builder = BusBuilder::new("memory");
    builder
        .attach("first", range(0x100, 0x10), probe(0))
        .unwrap();
    for (start, len) in [
        (0x100, 0x10),
        (0x10f, 1),
        (0xf0, 0x11),
        (0, 0x1000),
        (0x104, 1),
    ] {
        let error = builder
            .attach("second", range(start, len), probe(0))
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("overlaps first at 0x100+0x10"), "{text}");
    }
    for (start, len) in [(5, 0), (u64::MAX, 2)] {
        let error = builder
            .attach("second", range(start, len), probe(0))
            .unwrap_err();
        assert!(matches!(error, Overlap::NoRange { .. }));
    }
    builder.attach("after", range(0x110, 1), probe(0)).unwrap();
    builder.attach("before", range(0xff, 1), probe(0)).unwrap();
}

proptest! {
    /// The bus agrees with a plain search over the ranges.
    #[test]
    fn lookup_agrees_with_a_plain_search(
        ranges in prop::collection::vec((0_u64..200, 1_u64..20), 0..20),
        at in 0_u64..230,
    ) {
        let mut builder = BusBuilder::new("memory");
        let mut model: Vec<(u64, u64, u64)> = Vec::new();
        for (mark, (start, len)) in (1..).zip(ranges) {
            let free = model.iter().all(|(s, l, _)| start + len <= *s || s + l <= start);
            let attached = builder.attach("probe", range(start, len), probe(mark)).is_ok();
            prop_assert_eq!(attached, free);
            if free {
                model.push((start, len, mark));
            }
        }
        let expected = model
            .iter()
            .find(|(start, len, _)| (*start..start + len).contains(&at))
            .filter(|(start, ..)| at - start != 3)
            .map_or(0xff, |(start, ..)| at - start);
        let data: [u8; 1] = read(&builder.freeze(), at);
        prop_assert_eq!(u64::from(data[0]), expected);
    }
}
