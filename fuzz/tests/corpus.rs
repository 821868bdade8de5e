//! Every target on every file of its corpus, and on pieces of it.

use std::{fs, path::Path};

#[test]
fn no_target_breaks_on_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in fuzz::TARGETS {
        let folder = corpus.join(name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("a corpus of {name} in {}: {error}", folder.display()))
            .map(|it| it.expect("a file").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            println!("{}", file.display());
            let bytes = fs::read(&file).expect("a file of the corpus");
            target(&bytes);
            // Cut short anywhere: what a broken connection leaves.
            let step = (bytes.len() / 64).max(1);
            (0..bytes.len()).step_by(step).for_each(|end| target(&bytes[..end]));
        }
    }
}
