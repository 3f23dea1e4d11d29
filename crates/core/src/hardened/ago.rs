//! How long ago a block was freed, as a report says it.

use crate::misuse::Line;

/// How long ago something happened, in milliseconds: at least and at most so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ago {
    /// At least.
    pub least: u64,
    /// At most.
    pub most: u64,
}

impl Ago {
    /// Something that happened at the time `then`.
    pub fn since(then: u64, now: u64) -> Ago {
        let ago = now.saturating_sub(then);
        Ago {
            least: ago,
            most: ago,
        }
    }

    /// Says when a block was freed, in plain words.
    pub fn tell(self, line: &mut Line) {
        const SECOND: u64 = 1000;
        if self.most < SECOND {
            line.text("; freed less than a second ago");
            return;
        }
        let (unit, name) = match self.most {
            0..120_000 => (SECOND, " seconds ago"),
            120_000..7_200_000 => (60 * SECOND, " minutes ago"),
            _ => (3600 * SECOND, " hours ago"),
        };
        let (least, most) = (self.least / unit, self.most.div_ceil(unit));
        line.text("; freed ");
        if least == 0 {
            line.text("at most ");
        } else if least + 1 < most {
            line.decimal(least as usize).text(" to ");
        }
        line.decimal(most as usize).text(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_ago_is_said_in_plain_words() {
        let said = |least, most| {
            let mut line = Line::new();
            Ago { least, most }.tell(&mut line);
            std::string::String::from_utf8(line.bytes().to_vec()).unwrap()
        };
        assert_eq!(said(0, 400), "; freed less than a second ago");
        assert_eq!(said(0, 3100), "; freed at most 4 seconds ago");
        assert_eq!(said(2100, 4100), "; freed 2 to 5 seconds ago");
        assert_eq!(said(2100, 2900), "; freed 3 seconds ago");
        assert_eq!(said(200_000, 300_000), "; freed 3 to 5 minutes ago");
        assert_eq!(said(9_000_000, 9_000_000), "; freed 3 hours ago");
    }
}
