//! What a visitor does, and how a list of it is written in an address.

use std::fmt;
use std::str::FromStr;

/// The ordering keys of the playground.
pub(super) const KEYS: [char; 4] = ['A', 'B', 'C', 'D'];
pub(super) const RELAYS: usize = 2;

/// What is the matter with an order, or its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Fine,
    /// Its transaction is rolled back.
    RolledBack,
    /// No queue takes it: each send fails, until it is repaired.
    Unroutable,
    /// It kills the relay that sends it, until it is repaired.
    Deadly,
}

/// One click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Order {
        key: usize,
        fate: Fate,
    },
    /// Whether customers order by themselves.
    Customers {
        come: bool,
    },
    Kill {
        relay: usize,
    },
    Start {
        relay: usize,
    },
    Freeze {
        relay: usize,
    },
    Thaw {
        relay: usize,
    },
    Cut,
    Mend,
    /// The store's next answer to a report does not arrive.
    LoseAnswer,
    /// A dead letter is repaired and tried again.
    Redrive {
        message: usize,
    },
    Discard {
        message: usize,
    },
}

/// An act at a time, in milliseconds of the world. Written as `1200k1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timed {
    pub(super) at: u64,
    pub(super) act: Act,
}

impl fmt::Display for Timed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, act } = self;
        match *act {
            Act::Order { key, fate } => {
                let letter = match fate {
                    Fate::Fine => 'o',
                    Fate::RolledBack => 'b',
                    Fate::Unroutable => 'u',
                    Fate::Deadly => 'd',
                };
                write!(formatter, "{at}{letter}{key}")
            }
            Act::Customers { come } => write!(formatter, "{at}c{}", u8::from(come)),
            Act::Kill { relay } => write!(formatter, "{at}k{relay}"),
            Act::Start { relay } => write!(formatter, "{at}s{relay}"),
            Act::Freeze { relay } => write!(formatter, "{at}f{relay}"),
            Act::Thaw { relay } => write!(formatter, "{at}t{relay}"),
            Act::Cut => write!(formatter, "{at}x0"),
            Act::Mend => write!(formatter, "{at}x1"),
            Act::LoseAnswer => write!(formatter, "{at}l0"),
            Act::Redrive { message } => write!(formatter, "{at}r{message}"),
            Act::Discard { message } => write!(formatter, "{at}z{message}"),
        }
    }
}

impl FromStr for Timed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no act; one is written as 1200k1");
        let letter = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
        let at = text[..letter].parse().map_err(|_| wrong())?;
        let (name, value) = text[letter..].split_at_checked(1).ok_or_else(wrong)?;
        let value: usize = value.parse().map_err(|_| wrong())?;
        let order = |fate| (value < KEYS.len()).then_some(Act::Order { key: value, fate });
        let relay = |act: fn(usize) -> Act| (value < RELAYS).then(|| act(value));
        let act = match name {
            "o" => order(Fate::Fine),
            "b" => order(Fate::RolledBack),
            "u" => order(Fate::Unroutable),
            "d" => order(Fate::Deadly),
            "c" if value < 2 => Some(Act::Customers { come: value == 1 }),
            "k" => relay(|relay| Act::Kill { relay }),
            "s" => relay(|relay| Act::Start { relay }),
            "f" => relay(|relay| Act::Freeze { relay }),
            "t" => relay(|relay| Act::Thaw { relay }),
            "x" if value < 2 => Some(if value == 0 { Act::Cut } else { Act::Mend }),
            "l" if value == 0 => Some(Act::LoseAnswer),
            "r" => Some(Act::Redrive { message: value }),
            "z" => Some(Act::Discard { message: value }),
            _ => None,
        };
        Ok(Self { at, act: act.ok_or_else(wrong)? })
    }
}

/// The acts in the order of their times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script(pub(super) Vec<Timed>);

impl fmt::Display for Script {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, timed) in self.0.iter().enumerate() {
            write!(formatter, "{}{timed}", if place == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut acts: Vec<Timed> =
            text.split('.').filter(|part| !part.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
        acts.sort_by_key(|timed| timed.at);
        Ok(Self(acts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_was_written() {
        let text = "0c0.5o0.5b1.9u2.10d3.11k0.12s1.13f0.14t1.15x0.16x1.17r4.18z12.19l0";
        let script: Script = text.parse().unwrap();
        assert_eq!(script.0.len(), 14);
        assert_eq!(script.to_string(), text);
        assert_eq!("".parse(), Ok(Script::default()));
    }

    #[test]
    fn what_is_no_act_is_refused() {
        for wrong in ["k0", "5k", "5k2", "5o4", "5c2", "5x2", "5l1", "5q1", "99999999999999999999k0", "5é1"]
        {
            let error = wrong.parse::<Script>().unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
