//! Inputs: the reference vectors and what a seeded generator makes of them.

use serde_json::Value;

/// Bytes that mean something to MessagePack or JSON.
const TELLING: &[u8] = b"\xc0\xc1\xc4\xc6\xc7\xc9\xca\xcb\xcf\xd3\xd4\xd9\xdb\xdc\xdd\xde\xdf\x80\x8f\x90\x9f\xa0\xbf\xe0\xff\x00\x7f{}[],:\"\\u-.eE0 \n";

/// Words that turn one valid message into another.
const WORDS: &[&[u8]] = &[
    b"\xa4type",
    b"\xaccommand_type",
    b"\xa5admit",
    b"\xa5evict",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\"type\":",
    b"\\ud83d\\ude00",
    b"18446744073709551616",
    b"1e999",
];

/// No mutant grows beyond this.
const LONGEST: usize = 8192;

/// The vectors as MessagePack or as JSON.
pub(crate) fn corpus(json: bool) -> Vec<Vec<u8>> {
    [
        include_str!("../testdata/messages.jsonl"),
        include_str!("../testdata/decoding.jsonl"),
    ]
    .iter()
    .flat_map(|file| file.lines())
    .filter_map(|line| {
        let line: Value = serde_json::from_str(line).expect("vectors are JSON lines");
        if json {
            let value = line.get("value").or_else(|| line.get("ok"))?;
            Some(value.to_string().into_bytes())
        } else {
            hex::decode(line.get("msgpack")?.as_str()?).ok()
        }
    })
    .collect()
}

/// SplitMix64, enough to pick places and bytes.
pub(crate) struct Mutator {
    state: u64,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is at least 1.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("less than a usize")
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// Puts `input` in the place of any.
    pub(crate) fn replace(&mut self, corpus: &mut [Vec<u8>], input: Vec<u8>) {
        let place = self.below(corpus.len());
        corpus[place] = input;
    }

    /// One of the corpus, changed in a few places.
    pub(crate) fn mutant(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input, corpus);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = (at + self.below(24)).min(input.len());
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = TELLING[self.below(TELLING.len())],
            2 => input.insert(at, TELLING[self.below(TELLING.len())]),
            3 => drop(input.drain(at..end)),
            4 => drop(input.splice(at..end, self.pick(WORDS).iter().copied())),
            5 => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len() + 1);
                let to = (from + self.below(64)).min(other.len());
                drop(input.splice(at..end, other[from..to].iter().copied()));
            }
            6 => {
                let piece = input[at..end].to_vec();
                let times = self.below(40);
                let repeated = piece.iter().copied().cycle().take(piece.len() * times);
                drop(input.splice(at..at, repeated));
            }
            _ => input.truncate(at),
        }
    }
}
