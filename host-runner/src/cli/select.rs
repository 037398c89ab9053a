//! Which cases the command line means.

use super::args::TestArgs;

/// Whether the filters take this case. With a kind, as lists print it, the id is `[xfail] id`, and
/// cargo nextest asks for it by that name.
pub(super) fn takes(args: &TestArgs, id: &str) -> bool {
    let matches = |filter: &String| {
        let filter = filter.strip_prefix("[xfail] ").unwrap_or(filter);
        if args.exact { id == filter } else { id.contains(filter) }
    };
    (args.filters.is_empty() || args.filters.iter().any(matches)) && !args.skip.iter().any(matches)
}
