//! Links of a backend, made to lead through the door.
//!
//! Upstream: `apimachinery/pkg/util/proxy/transport.go`, rewriteURL and rewriteHTML.

/// Attributes that are links, by element.
const ATTRIBUTES: [(&str, &[&str]); 24] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

pub(super) struct Links<'a> {
    /// `/api/v1/namespaces/default/pods/p/proxy`
    pub(super) front: &'a str,
    /// The hosts under which the backend is known.
    pub(super) own: [&'a str; 2],
}

impl Links<'_> {
    /// Links to other hosts and relative ones stay as they are.
    pub(super) fn rewrite(&self, link: &str) -> String {
        let after_scheme =
            ["http://", "https://", "//"].iter().find_map(|it| link.strip_prefix(it));
        let path = match after_scheme {
            Some(rest) => {
                let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                let ours = self.own.iter().any(|it| !it.is_empty() && *it == host);
                if !ours || !path.starts_with('/') {
                    return link.to_owned();
                }
                path
            }
            None => link,
        };
        match path.starts_with('/') && !path.starts_with(self.front) {
            true => format!("{}{path}", self.front),
            false => path.to_owned(),
        }
    }

    /// A page with its links rewritten; everything else stays as it is, byte for byte.
    pub(super) fn page(&self, page: &str) -> String {
        let mut out = String::with_capacity(page.len() + 1024);
        let mut rest = page;
        while let Some(start) = rest.find('<') {
            let (before, tag) = rest.split_at(start);
            out.push_str(before);
            let length = if tag.starts_with("<!--") {
                tag.find("-->").map(|it| it + 3)
            } else if tag[1..].starts_with(|it: char| it.is_ascii_alphabetic()) {
                Some(self.element(tag, &mut out))
            } else {
                Some(1)
            };
            let length = length.unwrap_or(tag.len());
            if !tag[1..].starts_with(|it: char| it.is_ascii_alphabetic()) {
                out.push_str(&tag[..length]);
            }
            rest = &tag[length..];
            let name = element_name(tag);
            // What is in these is no markup.
            if ["script", "style", "textarea", "title"]
                .iter()
                .any(|it| name.eq_ignore_ascii_case(it))
            {
                let end = rest.find("</").unwrap_or(rest.len());
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
        out.push_str(rest);
        out
    }

    /// Writes one element's tag and says how long it was.
    fn element(&self, tag: &str, out: &mut String) -> usize {
        let name = element_name(tag);
        let known = ATTRIBUTES.iter().find(|it| it.0.eq_ignore_ascii_case(name));
        let known = known.map_or(&[][..], |it| it.1);
        let mut at = 1 + name.len();
        let mut written = 0;
        let bytes = tag.as_bytes();
        while at < bytes.len() && bytes[at] != b'>' {
            if bytes[at].is_ascii_whitespace() || bytes[at] == b'/' || bytes[at] == b'=' {
                at += 1;
                continue;
            }
            let ends = |it: u8| it.is_ascii_whitespace() || matches!(it, b'=' | b'>' | b'/');
            let from = at;
            while at < bytes.len() && !ends(bytes[at]) {
                at += 1;
            }
            let attribute = &tag[from..at];
            let mut value = at;
            while value < bytes.len() && bytes[value].is_ascii_whitespace() {
                value += 1;
            }
            if bytes.get(value) != Some(&b'=') {
                continue;
            }
            value += 1;
            while value < bytes.len() && bytes[value].is_ascii_whitespace() {
                value += 1;
            }
            let quote = bytes.get(value).copied().filter(|it| matches!(it, b'"' | b'\''));
            let start = value + usize::from(quote.is_some());
            let end = tag[start.min(tag.len())..].bytes().position(|it| match quote {
                Some(quote) => it == quote,
                None => it.is_ascii_whitespace() || it == b'>',
            });
            let Some(end) = end.map(|it| start + it) else { break };
            if known.iter().any(|it| it.eq_ignore_ascii_case(attribute)) {
                out.push_str(&tag[written..start]);
                out.push_str(&self.rewrite(&tag[start..end]));
                written = end;
            }
            at = end + usize::from(quote.is_some());
        }
        let length = (at + 1).min(tag.len());
        out.push_str(&tag[written..length]);
        length
    }
}

fn element_name(tag: &str) -> &str {
    let name = tag.strip_prefix('<').unwrap_or_default();
    &name[..name.find(|it: char| !it.is_ascii_alphanumeric()).unwrap_or(name.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: Links<'_> = Links { front: "/x/proxy", own: ["10.0.0.1:80", "door:6443"] };

    #[test]
    fn links_to_the_backend_lead_through_the_door() {
        for (link, expected) in [
            ("/a", "/x/proxy/a"),
            ("/a/?b#c", "/x/proxy/a/?b#c"),
            ("a/b", "a/b"),
            ("", ""),
            ("#top", "#top"),
            ("/x/proxy/a", "/x/proxy/a"),
            ("http://10.0.0.1:80/a", "/x/proxy/a"),
            ("https://door:6443/a", "/x/proxy/a"),
            ("//10.0.0.1:80/a", "/x/proxy/a"),
            ("http://elsewhere/a", "http://elsewhere/a"),
        ] {
            assert_eq!(LINKS.rewrite(link), expected, "{link}");
        }
    }

    #[test]
    fn only_links_of_a_page_change() {
        for (page, expected) in [
            ("<a href=\"/rewriteme\">test</a>", "<a href=\"/x/proxy/rewriteme\">test</a>"),
            ("<A class=b HREF='/c' id=d>/e</A>", "<A class=b HREF='/x/proxy/c' id=d>/e</A>"),
            ("<img src=/a.png><p title=\"/b\">", "<img src=/x/proxy/a.png><p title=\"/b\">"),
            (
                "<script src=\"/s\">a < '<a href=\"/b\">'</script>",
                "<script src=\"/x/proxy/s\">a < '<a href=\"/b\">'</script>",
            ),
            ("<!-- <a href=\"/b\"> --><b>1 < 2", "<!-- <a href=\"/b\"> --><b>1 < 2"),
            ("<a href=\"/never", "<a href=\"/never"),
            ("<a", "<a"),
            ("<", "<"),
            ("ä<a href=\"/ö\">ü", "ä<a href=\"/x/proxy/ö\">ü"),
        ] {
            assert_eq!(LINKS.page(page), expected, "{page}");
        }
    }
}
