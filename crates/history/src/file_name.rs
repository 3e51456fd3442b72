//! File names as people and programs send them, made into texts that can be shown and saved.
//!
//! Why: a name is a stranger's text. It is never used as a path here, but it is shown on a page, exported, and offered as
//! the name of a download, where somebody else's program makes a path of it.

/// Longest name, in bytes: half of what file systems allow, so that there is room for an ending.
pub const LONGEST: usize = 120;

/// The last part of `name` without what could mislead: path separators, control characters, marks that turn the direction
/// of writing or cannot be seen, and what Windows reserves. At most [`LONGEST`] bytes, the ending kept. Empty when nothing
/// is left.
#[must_use]
pub fn safe(name: &str) -> String {
    // A name of megabytes is cut before it is looked at.
    let tail_start = name.ceil_char_boundary(name.len().saturating_sub(4_096));
    let last = name[tail_start..].rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last.chars().filter(|c| !is_hidden(*c)).map(|c| if is_reserved(c) { '_' } else { c }).collect();
    // Windows drops dots and spaces at the end; a leading dot hides a file.
    let trimmed = kept.trim_matches(|c: char| c.is_whitespace() || c == '.');
    let stem = trimmed.split('.').next().unwrap_or_default().trim_end();
    let device = ["con", "prn", "aux", "nul"].contains(&stem.to_ascii_lowercase().as_str())
        || (stem.len() == 4
            && ["com", "lpt"].iter().any(|start| stem.to_ascii_lowercase().starts_with(start))
            && stem.ends_with(|c: char| c.is_ascii_digit()));
    let whole = if device { format!("_{trimmed}") } else { trimmed.to_owned() };
    shortened(&whole)
}

/// Cut in the middle, so that the ending still tells what it is.
fn shortened(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let ending = name.rfind('.').map(|dot| &name[dot..]).filter(|ending| ending.len() <= 16).unwrap_or_default();
    let stem = &name[..name.floor_char_boundary(LONGEST - ending.len())];
    format!("{}{ending}", stem.trim_end_matches([' ', '.']))
}

fn is_reserved(c: char) -> bool {
    matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*')
}

/// Characters that are not seen, or that change how their neighbours are.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' // zero width, left-to-right and right-to-left marks
            | '\u{2028}'..='\u{202e}' // line and paragraph separators, embeddings and overrides
            | '\u{2060}'..='\u{206f}' // joiners, isolates and their relatives
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_try_things_become_plain() {
        for (name, is) in [
            ("shoe.png", "shoe.png"),
            ("Größe 42, 靴.jpeg", "Größe 42, 靴.jpeg"),
            ("../../etc/passwd", "passwd"),
            ("..\\..\\windows\\win.ini", "win.ini"),
            ("C:\\Users\\me\\cat.jpg", "cat.jpg"),
            ("/", ""),
            ("..", ""),
            ("...", ""),
            ("", ""),
            (" . ", ""),
            (".bashrc", "bashrc"),
            ("a\u{202e}gnp.exe", "agnp.exe"),
            ("\u{2066}a\u{2069}\u{200b}.png\u{feff}", "a.png"),
            ("a\0b\r\nSet-Cookie: x.png", "abSet-Cookie_ x.png"),
            ("\u{1b}[31mred.png", "[31mred.png"),
            ("<img src=x>.png", "_img src=x_.png"),
            ("a\"; filename=\"b.png", "a_; filename=_b.png"),
            ("con", "_con"),
            ("LPT1.png", "_LPT1.png"),
            ("aux .png", "_aux .png"),
            ("console.png", "console.png"),
            ("name. . .", "name"),
        ] {
            assert_eq!(safe(name), is, "{name:?}");
        }
    }

    #[test]
    fn long_names_are_cut_between_characters_and_keep_their_ending() {
        let cut = safe(&format!("{}.png", "x".repeat(300)));
        assert_eq!((cut.len(), cut.ends_with("x.png")), (LONGEST, true));
        let cut = safe(&format!("{}.tiff", "\u{9774}".repeat(300)));
        assert!(cut.len() <= LONGEST && cut.ends_with("\u{9774}.tiff"), "{cut}");
        assert_eq!(safe(&"y".repeat(300)).len(), LONGEST);
        assert!(safe(&format!("a.{}", "z".repeat(300))).len() <= LONGEST);
        assert!(safe(&"\u{e9}/".repeat(1 << 20)).is_empty());
    }

    #[test]
    fn what_is_safe_stays_as_it_is() {
        for name in ["a b.png", "_con", "_img src=x_.png", "x"] {
            assert_eq!(safe(&safe(name)), safe(name));
        }
    }
}
