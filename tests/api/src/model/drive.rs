//! A drive: which image is behind it, how large it is, and its limits.

use super::{Ask, Dice, Expect};
use api::http::Method;
use serde_json::{Value, json};
use std::path::PathBuf;

const SECTOR: u64 = 512;

/// No image grows beyond it.
const MOST_BYTES: u64 = 4 << 20;

/// A file that can be behind the drive.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its path.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// A token bucket, in the words of both languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    size: u64,
    refill_ms: u64,
    burst: u64,
}

impl Bucket {
    fn drawn(dice: &mut Dice) -> Self {
        Self {
            size: 1 + dice.below(1 << 40),
            refill_ms: 1 + dice.below(100_000),
            burst: dice.below(3) * dice.below(1 << 30),
        }
    }

    fn ours(self) -> Value {
        json!({"size": self.size, "refill_ms": self.refill_ms, "burst": self.burst})
    }

    fn theirs(self) -> Value {
        json!({
            "size": self.size, "refill_time": self.refill_ms, "one_time_burst": self.burst,
        })
    }
}

/// The drive.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Its name.
    pub id: String,
    /// The files, of which one is behind it.
    pub images: Vec<Image>,
    now: usize,
    bandwidth: Option<Bucket>,
    iops: Option<Bucket>,
}

impl Drive {
    /// One of the first of some images, without limits.
    #[must_use]
    pub fn new(id: String, images: Vec<Image>) -> Self {
        Self {
            id,
            images,
            now: 0,
            bandwidth: None,
            iops: None,
        }
    }

    /// The body that describes it as it is at first.
    #[must_use]
    pub fn first(&self) -> Value {
        let file = &self.images[self.now].path;
        json!({"drive_id": self.id, "is_root_device": false, "path_on_host": file})
    }

    /// The drive as Firecracker's clients see it.
    #[must_use]
    pub fn view(&self) -> Value {
        let limits = self.bandwidth.or(self.iops).map(|_| {
            json!({
                "bandwidth": self.bandwidth.map(Bucket::theirs),
                "ops": self.iops.map(Bucket::theirs),
            })
        });
        json!({
            "drive_id": self.id, "path_on_host": self.images[self.now].path,
            "is_root_device": false, "rate_limiter": limits,
        })
    }

    /// A request that describes it before the machine's start.
    pub fn describe(&mut self, dice: &mut Dice) -> Ask {
        let id = &self.id;
        let path = format!("/drives/{id}");
        let image = dice.place_in(&self.images);
        let file = &self.images[image].path;
        let mut body = json!({"drive_id": id, "is_root_device": false, "path_on_host": file});
        let refused = match dice.below(12) {
            0 => Some(("drive_id", json!("other"), "invalid-value")),
            1 => Some(("path_on_host", json!("/no/such"), "bad-file")),
            2 => Some(("path_on_host", json!(7), "bad-body")),
            3 => Some(("nope", json!(7), "bad-body")),
            4 => Some(("is_root_device", json!("no"), "bad-body")),
            5 => Some(("rate_limiter", json!({"ops": {"size": 1}}), "bad-body")),
            6 => {
                let refused = Expect::Refused(400, "wrong-state");
                let body = json!({"drive_id": id, "path_on_host": file});
                return Ask::new(Method::Patch, path, Some(body), refused);
            }
            _ => None,
        };
        if let Some((name, value, code)) = refused {
            body[name] = value;
            return Ask::new(Method::Put, path, Some(body), Expect::Refused(400, code));
        }
        self.now = image;
        self.bandwidth = dice.once_in(2).then(|| Bucket::drawn(dice));
        self.iops = dice.once_in(2).then(|| Bucket::drawn(dice));
        let theirs = |bucket: Option<Bucket>| json!(bucket.map(Bucket::theirs));
        if self.bandwidth.or(self.iops).is_some() || dice.once_in(2) {
            body["rate_limiter"] =
                json!({"bandwidth": theirs(self.bandwidth), "ops": theirs(self.iops)});
        }
        Ask::new(Method::Put, path, Some(body), Expect::Done)
    }

    /// A request about it, carried out in the model. `place` is its place among all drives.
    pub fn ask(&mut self, dice: &mut Dice, place: usize) -> Ask {
        match dice.below(10) {
            0 | 1 => self.look(place),
            2 | 3 => self.patch_theirs(dice),
            4 | 5 => self.limit(dice),
            6 => self.change_image(dice),
            7 => self.resize(dice),
            8 => self.refused_theirs(dice),
            _ => self.refused(dice),
        }
    }

    /// It is shown as it is.
    #[must_use]
    pub fn look(&self, place: usize) -> Ask {
        let at = format!("/drives/{place}");
        Ask::new(
            Method::Get,
            "/vm/config",
            None,
            Expect::Shows(at, self.view()),
        )
    }

    fn patch(&self, body: Value, expect: Expect) -> Ask {
        let path = format!("/coracle/v1/drives/{}", self.id);
        Ask::new(Method::Patch, path, Some(body), expect)
    }

    fn patch_theirs(&mut self, dice: &mut Dice) -> Ask {
        let mut body = json!({"drive_id": self.id});
        if dice.once_in(3) {
            self.now = dice.place_in(&self.images);
            body["path_on_host"] = json!(self.images[self.now].path);
        }
        let mut limiter = json!({});
        let buckets = [("bandwidth", &mut self.bandwidth), ("ops", &mut self.iops)];
        for (name, bucket) in buckets {
            match dice.below(4) {
                0 => *bucket = Some(Bucket::drawn(dice)),
                1 => *bucket = None,
                _ => continue,
            }
            // A bucket of size zero is none.
            let none = json!({"size": 0, "refill_time": 0});
            limiter[name] = bucket.map_or(none, Bucket::theirs);
        }
        if limiter != json!({}) || dice.once_in(2) {
            body["rate_limiter"] = limiter;
        }
        let path = format!("/drives/{}", self.id);
        Ask::new(Method::Patch, path, Some(body), Expect::Done)
    }

    fn limit(&mut self, dice: &mut Dice) -> Ask {
        let mut limits = json!({});
        let buckets = [("bandwidth", &mut self.bandwidth), ("iops", &mut self.iops)];
        for (name, bucket) in buckets {
            match dice.below(3) {
                0 => *bucket = Some(Bucket::drawn(dice)),
                1 => *bucket = None,
                _ => continue,
            }
            limits[name] = json!(bucket.map(Bucket::ours));
        }
        self.patch(json!({"limits": limits}), Expect::Done)
    }

    fn change_image(&mut self, dice: &mut Dice) -> Ask {
        self.now = dice.place_in(&self.images);
        self.patch(json!({"path": self.images[self.now].path}), Expect::Done)
    }

    fn resize(&mut self, dice: &mut Dice) -> Ask {
        if dice.once_in(2) {
            return self.patch(json!({"rescan": true}), Expect::Done);
        }
        let image = &mut self.images[self.now];
        let wanted = image.bytes + dice.below(8) * SECTOR;
        if wanted > MOST_BYTES {
            let less = json!({"size": image.bytes - SECTOR});
            return self.patch(less, Expect::Refused(422, "invalid-value"));
        }
        image.bytes = wanted;
        let text = dice.once_in(2).then(|| json!(wanted.to_string()));
        self.patch(json!({"size": text.unwrap_or(json!(wanted))}), Expect::Done)
    }

    fn refused_theirs(&self, dice: &mut Dice) -> Ask {
        let id = &self.id;
        let (body, code) = match dice.below(7) {
            0 => (json!({"drive_id": "other"}), "invalid-value"),
            1 => (
                json!({"drive_id": id, "path_on_host": "/no/such"}),
                "bad-file",
            ),
            2 => (json!({"drive_id": id, "path_on_host": "/"}), "bad-file"),
            3 => (json!({"drive_id": id, "path_on_host": 7}), "bad-body"),
            4 => (json!({"drive_id": id, "nope": 1}), "bad-body"),
            5 => (json!({"path_on_host": self.images[0].path}), "bad-body"),
            _ => (
                json!({"drive_id": id, "rate_limiter": {"ops": {"size": -1}}}),
                "bad-body",
            ),
        };
        let path = format!("/drives/{id}");
        Ask::new(Method::Patch, path, Some(body), Expect::Refused(400, code))
    }

    /// What is good in such a request is not carried out either.
    fn refused(&self, dice: &mut Dice) -> Ask {
        let good = Bucket::drawn(dice).ours();
        let path = &self.images[dice.place_in(&self.images)].path;
        let image = &self.images[self.now];
        let zero = json!({"size": 0, "refill_ms": 1});
        let limits = json!({"bandwidth": good});
        let (body, status, code) = match dice.below(9) {
            0 => (
                json!({"limits": limits, "path": "/no/such"}),
                422,
                "bad-file",
            ),
            1 => (
                json!({"limits": {"bandwidth": good, "iops": zero}}),
                422,
                "invalid-value",
            ),
            2 => (
                json!({"limits": limits, "size": image.bytes + 1}),
                422,
                "invalid-value",
            ),
            3 => (
                json!({"limits": limits, "size": SECTOR}),
                422,
                "invalid-value",
            ),
            4 => (json!({"path": path, "rescan": true}), 422, "invalid-value"),
            5 => (json!({"path": path, "nope": 1}), 400, "bad-body"),
            6 => (
                json!({"limits": limits, "size": "1 parsec"}),
                422,
                "invalid-value",
            ),
            7 => (
                json!({"limits": {"bandwidth": good, "iops": 5}}),
                400,
                "bad-body",
            ),
            _ => {
                let nobody = "/coracle/v1/drives/nobody";
                let refused = Expect::Refused(404, "unknown-device");
                return Ask::new(Method::Patch, nobody, Some(json!({"path": path})), refused);
            }
        };
        self.patch(body, Expect::Refused(status, code))
    }
}
