//! cat, tee, ls, rm, touch, fill.

use crate::{Attempt, Failure, Outcome, flags};
use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    time::SystemTime,
};

/// Content is moved in pieces of this size.
const PIECE: usize = 64 * 1024;

pub(crate) fn cat(words: &[String]) -> Outcome {
    let (_, files) = flags(words, "u")?;
    let standard_input = ["-".to_owned()];
    for name in if files.is_empty() { &standard_input } else { files } {
        let from: &mut dyn Read = match name.as_str() {
            "-" => &mut io::stdin().lock(),
            name => &mut File::open(name).attempt(|| format!("open {name}"))?,
        };
        copy(from, &mut [(&"standard output".to_owned(), stdout_file()?)], name)?;
    }
    Ok(())
}

pub(crate) fn tee(words: &[String]) -> Outcome {
    let (flags, files) = flags(words, "a")?;
    let append = flags.contains('a');
    let standard_output = "standard output".to_owned();
    let mut outputs = vec![(&standard_output, stdout_file()?)];
    for name in files {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append)
            .open(name)
            .attempt(|| format!("open {name}"))?;
        outputs.push((name, file));
    }
    copy(&mut io::stdin().lock(), &mut outputs, "-")
}

/// Unbuffered: what was read is written before more is read.
fn stdout_file() -> Result<File, Failure> {
    use std::os::fd::AsFd;
    let descriptor = io::stdout().as_fd().try_clone_to_owned();
    Ok(File::from(descriptor.attempt(|| "open standard output".to_owned())?))
}

fn copy(from: &mut dyn Read, to: &mut [(&String, File)], name: &str) -> Outcome {
    let mut piece = vec![0; PIECE];
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).attempt(|| format!("read {name}")),
        };
        for (output, file) in to.iter_mut() {
            file.write_all(&piece[..read]).attempt(|| format!("write {output}"))?;
        }
    }
}

/// Writes bytes that are not zero until BYTES are on the disk or it refuses, and says how many are.
pub(crate) fn fill(words: &[String]) -> Outcome {
    let [name, bytes] = words else { return Err(Failure::Usage) };
    let wanted = size(bytes).ok_or(Failure::Usage)?;
    let mut file = File::create(name).attempt(|| format!("create {name}"))?;
    let piece = vec![b'#'; PIECE];
    let mut written = 0;
    let mut outcome = Ok(());
    while written < wanted && outcome.is_ok() {
        let length = usize::try_from(wanted - written).unwrap_or(PIECE).min(PIECE);
        match file.write(&piece[..length]) {
            Ok(0) => outcome = Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(length) => written += length as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => outcome = Err(error),
        }
    }
    // Some filesystems find out only now that there is no space.
    let outcome = outcome.and_then(|()| file.sync_all());
    println!("wrote {written} bytes");
    outcome.attempt(|| format!("write {name} after {written} bytes"))
}

/// `12`, `64K`, `10M`, `1G`, with or without `i`.
fn size(text: &str) -> Option<u64> {
    let text = text.strip_suffix('i').unwrap_or(text);
    let (number, shift) = match text.chars().last()? {
        'K' | 'k' => (&text[..text.len() - 1], 10),
        'M' => (&text[..text.len() - 1], 20),
        'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

pub(crate) fn touch(words: &[String]) -> Outcome {
    let (_, files) = flags(words, "")?;
    if files.is_empty() {
        return Err(Failure::Usage);
    }
    for name in files {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(name)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .attempt(|| format!("touch {name}"))?;
    }
    Ok(())
}

pub(crate) fn rm(words: &[String]) -> Outcome {
    let (flags, paths) = flags(words, "rf")?;
    let (recursive, force) = (flags.contains('r'), flags.contains('f'));
    if paths.is_empty() && !force {
        return Err(Failure::Usage);
    }
    for path in paths {
        let is_directory = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        let removed = match is_directory && recursive {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
        match removed {
            Err(error) if force && error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.attempt(|| format!("remove {path}"))?,
        }
    }
    Ok(())
}

pub(crate) fn ls(words: &[String]) -> Outcome {
    let (flags, paths) = flags(words, "la1")?;
    let (long, all) = (flags.contains('l'), flags.contains('a'));
    let here = [".".to_owned()];
    let paths = if paths.is_empty() { &here } else { paths };
    let mut listing = String::new();
    for path in paths {
        let found = fs::symlink_metadata(path).attempt(|| format!("look at {path}"))?;
        let is_directory = found.is_dir() || (!long && Path::new(path).is_dir());
        if !is_directory {
            listing.push_str(&line(path, Path::new(path), &found, long));
            continue;
        }
        if paths.len() > 1 {
            listing.push_str(&format!("{path}:\n"));
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).attempt(|| format!("list {path}"))? {
            entries.push(entry.attempt(|| format!("list {path}"))?);
        }
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') && !all {
                continue;
            }
            // It may be gone by now: then it is no part of the directory any more.
            if let Ok(found) = entry.metadata() {
                listing.push_str(&line(&name, &entry.path(), &found, long));
            }
        }
    }
    io::stdout().write_all(listing.as_bytes()).attempt(|| "write to standard output".to_owned())
}

fn line(name: &str, path: &Path, found: &Metadata, long: bool) -> String {
    if !long {
        return format!("{name}\n");
    }
    let target = match fs::read_link(path) {
        Ok(target) => format!(" -> {}", target.display()),
        Err(_) => String::new(),
    };
    let (mode, links) = (mode(found), found.nlink());
    let (owner, group, length) = (found.uid(), found.gid(), found.len());
    let time = date(found.mtime());
    format!("{mode} {links:>3} {owner:>5} {group:>5} {length:>12} {time} {name}{target}\n")
}

fn mode(found: &Metadata) -> String {
    let kind = found.file_type();
    let first = match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () => '-',
    };
    let mode = found.mode();
    let mut text: Vec<char> = "rwxrwxrwx".chars().collect();
    for (place, letter) in text.iter_mut().enumerate() {
        if mode & (0o400 >> place) == 0 {
            *letter = '-';
        }
    }
    for (bit, place, letter) in [(0o4000, 2, 's'), (0o2000, 5, 's'), (0o1000, 8, 't')] {
        if mode & bit != 0 {
            text[place] = if text[place] == 'x' { letter } else { letter.to_ascii_uppercase() };
        }
    }
    format!("{first}{}", text.into_iter().collect::<String>())
}

/// `2026-11-21 10:12` in UTC. Days to a date after Howard Hinnant's civil_from_days.
fn date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", rest / 3600, rest % 3600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let read = ["12", "64K", "10Mi", "1G", "x", "", "99999999999999999G"].map(size);
        assert_eq!(read, [Some(12), Some(65_536), Some(10 << 20), Some(1 << 30), None, None, None]);
    }

    #[test]
    fn dates_are_civil() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(1_795_255_970), "2026-11-21 10:12");
        assert_eq!(date(951_782_400), "2000-02-29 00:00");
    }
}
