//! Makes the files that are worked with: the same on every machine, and nothing that compresses.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Numbers that look random (xorshift64*).
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next one.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// One below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}

/// A file of random bytes.
pub fn large_file(path: &Path, mib: u64) -> io::Result<()> {
    let mut dice = Dice::new(mib);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for _ in 0..mib << 17 {
        file.write_all(&dice.roll().to_le_bytes())?;
    }
    file.flush()?;
    set_old(path)
}

/// A tree of `files` text files of 1 to 16 KiB, 25 to a directory; one directory of five holds
/// the four others. Every seventh file ends with a line that has the word `needle`.
pub fn small_tree(root: &Path, files: u32) -> io::Result<()> {
    tree(root, files, |dice, number| {
        let len = 1024 + dice.below(15 * 1024);
        let mut text = letters(dice, len);
        if number % 7 == 0 {
            text.extend_from_slice(format!("a needle in file {number}\n").as_bytes());
        }
        text
    })
}

/// A tree of the same shape with 1,000 files of a few bytes, for works that do not look inside.
pub fn sparse_tree(root: &Path) -> io::Result<()> {
    tree(root, 1000, |_, number| format!("{number}\n").into_bytes())
}

fn tree(
    root: &Path,
    files: u32,
    mut content: impl FnMut(&mut Dice, u32) -> Vec<u8>,
) -> io::Result<()> {
    let mut dice = Dice::new(u64::from(files));
    for number in 0..files {
        let dir = root.join(directory_of(number / 25));
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("file{number:04}.txt"));
        fs::write(&path, content(&mut dice, number))?;
        set_old(&path)?;
    }
    for number in (0..files.div_ceil(25)).rev() {
        set_old(&root.join(directory_of(number)))?;
    }
    set_old(root)
}

/// The place of a directory of such a tree, by its number.
pub fn directory_of(number: u32) -> PathBuf {
    let top = PathBuf::from(format!("dir{:02}", number - number % 5));
    if number.is_multiple_of(5) {
        top
    } else {
        top.join(format!("sub{number:02}"))
    }
}

/// A directory with many empty files.
pub fn wide_directory(root: &Path, entries: u32) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for number in 0..entries {
        File::create(root.join(format!("entry{number:06}")))?;
    }
    set_old(root)
}

/// Sources of a program that prints how many files it was made of, and their Makefile.
pub fn c_project(root: &Path, sources: u32) -> io::Result<()> {
    fs::create_dir_all(root)?;
    fs::write(
        root.join("Makefile"),
        "SOURCES = $(sort $(wildcard *.c))\n\
         program: $(SOURCES:.c=.o)\n\t$(CC) -o $@ $^\n\
         %.o: %.c parts.h\n\t$(CC) -c -o $@ $<\n",
    )?;
    let mut header = String::new();
    let mut sum = String::from("0");
    for number in 0..sources {
        header.push_str(&format!("int part{number}(void);\n"));
        sum.push_str(&format!(" + part{number}()"));
        let part = format!("#include \"parts.h\"\nint part{number}(void) {{ return 1; }}\n");
        fs::write(root.join(format!("part{number}.c")), part)?;
    }
    fs::write(root.join("parts.h"), header)?;
    fs::write(
        root.join("main.c"),
        format!(
            "#include \"parts.h\"\nint printf(const char *, ...);\n\
             int main(void) {{ printf(\"%d\\n\", {sum}); return 0; }}\n"
        ),
    )?;
    for entry in fs::read_dir(root)? {
        set_old(&entry?.path())?;
    }
    Ok(())
}

/// Lines of letters, `len` bytes in all.
fn letters(dice: &mut Dice, len: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for at in 1..len {
        let letter = b'a' + u8::try_from(dice.below(26)).unwrap_or(0);
        text.push(if at % 72 == 0 { b'\n' } else { letter });
    }
    text.push(b'\n');
    text
}

/// A time of whole seconds, as SFTP carries it, and long ago, so that nothing is "just changed".
fn set_old(path: &Path) -> io::Result<()> {
    let then: SystemTime = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    File::open(path)?.set_modified(then)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_the_same_each_time_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        small_tree(&one, 60).unwrap();
        small_tree(&two, 60).unwrap();
        let path = directory_of(2).join("file0055.txt");
        let content = fs::read(one.join(&path)).unwrap();
        assert_eq!(content, fs::read(two.join(&path)).unwrap());
        assert!((1024..16 * 1024 + 100).contains(&content.len()));
    }

    #[test]
    fn four_directories_are_inside_the_fifth() {
        assert_eq!(directory_of(5), PathBuf::from("dir05"));
        assert_eq!(directory_of(9), PathBuf::from("dir05/sub09"));
    }
}
