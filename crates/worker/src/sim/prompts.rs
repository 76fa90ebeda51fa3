//! Synthetic prompts that share prefixes as real ones do.
//!
//! A request is a system prompt (a few are asked for most: Zipf) and the conversation so far. A
//! conversation lasts several turns, and each request repeats everything before it. System prompts
//! follow from the fleet's seed alone, so that instances share them; conversations from the seed
//! and the stream's number. Equal arguments give equal prompts.

use super::random::Random;

/// Shape of the traffic. Ranges include both ends.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptSettings {
    /// Different system prompts in the fleet.
    pub system_prompts: usize,
    /// Their length in tokens.
    pub system_tokens: (usize, usize),
    /// Exponent of Zipf's law over them: 0 is even, 1 is like words in a text.
    pub zipf_exponent: f64,
    /// Conversations under way at once.
    pub sessions: usize,
    /// Requests of one conversation.
    pub turns: (usize, usize),
    /// Tokens that a question and the answer before it add.
    pub turn_tokens: (usize, usize),
    /// Different token ids.
    pub vocabulary: usize,
}

impl Default for PromptSettings {
    fn default() -> Self {
        Self {
            system_prompts: 24,
            system_tokens: (512, 4096),
            zipf_exponent: 1.1,
            sessions: 16,
            turns: (1, 8),
            turn_tokens: (64, 768),
            vocabulary: 128_000,
        }
    }
}

/// The requests of one instance.
#[derive(Debug)]
pub struct Prompts {
    settings: PromptSettings,
    seed: u64,
    random: Random,
    /// Sums of Zipf's weights, ending at 1.
    cumulative: Vec<f64>,
    sessions: Vec<Session>,
}

#[derive(Debug)]
struct Session {
    tokens: Vec<u32>,
    turns_left: usize,
}

impl Prompts {
    /// Stream number `stream` of the fleet with this seed.
    pub fn new(settings: PromptSettings, seed: u64, stream: u64) -> Self {
        let weights: Vec<f64> = (1..=settings.system_prompts.max(1))
            .map(|rank| (rank as f64).powf(-settings.zipf_exponent))
            .collect();
        let total: f64 = weights.iter().sum();
        let cumulative = weights
            .iter()
            .scan(0.0, |sum, weight| {
                *sum += weight / total;
                Some(*sum)
            })
            .collect();
        let mut prompts = Self {
            // Apart from the system prompts' streams, which are numbered from 0.
            random: Random::named(seed, !stream),
            settings,
            seed,
            cumulative,
            sessions: Vec::new(),
        };
        for _ in 0..prompts.settings.sessions.max(1) {
            let session = prompts.session();
            prompts.sessions.push(session);
        }
        prompts
    }

    /// The tokens of the next request.
    pub fn next_prompt(&mut self) -> Vec<u32> {
        let at = self.random.below(self.sessions.len());
        let length = self.random.between(self.settings.turn_tokens);
        let turn = tokens(&mut self.random, length, self.settings.vocabulary);
        let session = &mut self.sessions[at];
        session.tokens.extend(turn);
        session.turns_left = session.turns_left.saturating_sub(1);
        if session.turns_left > 0 {
            return session.tokens.clone();
        }
        let next = self.session();
        std::mem::replace(&mut self.sessions[at], next).tokens
    }

    fn session(&mut self) -> Session {
        let point = self.random.unit();
        let rank = self.cumulative.partition_point(|&sum| sum < point);
        let rank = rank.min(self.cumulative.len() - 1);
        Session {
            tokens: system_prompt(&self.settings, self.seed, rank),
            turns_left: self.random.between(self.settings.turns).max(1),
        }
    }
}

/// System prompt number `rank` of the fleet; 0 is asked for most.
pub fn system_prompt(settings: &PromptSettings, seed: u64, rank: usize) -> Vec<u32> {
    let mut random = Random::named(seed, rank as u64);
    let length = random.between(settings.system_tokens);
    tokens(&mut random, length, settings.vocabulary)
}

fn tokens(random: &mut Random, length: usize, vocabulary: usize) -> Vec<u32> {
    (0..length)
        .map(|_| random.below(vocabulary) as u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn stream(seed: u64, stream: u64) -> Vec<Vec<u32>> {
        let mut prompts = Prompts::new(PromptSettings::default(), seed, stream);
        (0..200).map(|_| prompts.next_prompt()).collect()
    }

    #[test]
    fn equal_seeds_give_equal_prompts_and_others_do_not() {
        assert_eq!(stream(1, 0), stream(1, 0));
        assert_ne!(stream(1, 0), stream(1, 1));
        assert_ne!(stream(1, 0), stream(2, 0));
    }

    #[test]
    fn instances_share_system_prompts_and_few_are_asked_for_most() {
        let settings = PromptSettings::default();
        let system: Vec<_> = (0..settings.system_prompts)
            .map(|rank| system_prompt(&settings, 1, rank))
            .collect();
        let mut counts = BTreeMap::<usize, usize>::new();
        for prompt in stream(1, 0).iter().chain(&stream(1, 1)) {
            let rank = system
                .iter()
                .position(|head| prompt.starts_with(head))
                .unwrap();
            *counts.entry(rank).or_default() += 1;
        }
        assert!(counts.len() > 5, "{counts:?}");
        let first = counts.get(&0).copied().unwrap_or(0);
        assert!(
            first * 8 > 400,
            "the first of 24 has over an eighth: {counts:?}"
        );
    }

    #[test]
    fn conversations_grow_turn_by_turn() {
        let prompts = stream(3, 0);
        let continued = prompts
            .iter()
            .enumerate()
            .filter(|(at, prompt)| {
                prompts[..*at]
                    .iter()
                    .any(|earlier| earlier.len() < prompt.len() && prompt.starts_with(earlier))
            })
            .count();
        assert!(continued > 100, "{continued} of 200");
    }
}
