//! Huge pages of a node (`Documentation/admin-guide/mm/hugetlbpage.rst`).

use bulkhead_api::inventory::HugepagePool;
use bulkhead_api::resource::PageSize;

use super::tree::Tree;

/// Pools in a directory of `hugepages-SIZEkB`, by size ascending. Sizes that the kernel does not offer have none.
pub(super) fn pools(tree: &mut Tree<'_>, folder: &str) -> Vec<HugepagePool> {
    let pool = |page_size: PageSize| {
        let below = format!("{folder}/hugepages-{}kB", page_size.bytes().get() >> 10);
        let total = tree.parse(&format!("{below}/nr_hugepages"))?;
        let free = tree.parse(&format!("{below}/free_hugepages"))?;
        Some(HugepagePool { page_size, total, free })
    };
    PageSize::ALL.into_iter().filter_map(pool).collect()
}
