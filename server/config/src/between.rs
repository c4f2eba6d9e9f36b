//! What the application's processes share: locks, caches, metrics, and the mules that they send work to.

use serde::{Deserialize, Serialize};

use super::Config;
use super::value::{number, truth};

type Outcome = Result<(), String>;

/// What is shared between processes. None of it can change while the server runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Between {
    /// `--locks`: locks beside the first, which is always there.
    pub locks: u32,
    /// `--cache2` and `--cache`, in order: the first is the one that goes without a name.
    pub caches: Vec<Cache>,
    /// `--cache-blocksize`, for the cache of `--cache`.
    pub cache_blocksize: u64,
    /// `--add-cache-item` and `--load-file-in-cache`, in order: what caches begin with.
    pub items: Vec<CacheItem>,
    /// `--metric`, in order.
    pub metrics: Vec<Metric>,
    /// `--mule` and `--mules`: what each runs, unless it only handles messages.
    pub mules: Vec<Option<String>>,
    /// `--mule-harakiri`: seconds that a mule may take for one signal.
    pub mule_harakiri: Option<u32>,
    /// `--farm`, in order.
    pub farms: Vec<Farm>,
}

impl Default for Between {
    fn default() -> Self {
        Self {
            locks: 0,
            caches: Vec::new(),
            cache_blocksize: BLOCKSIZE,
            items: Vec::new(),
            metrics: Vec::new(),
            mules: Vec::new(),
            mule_harakiri: None,
            farms: Vec::new(),
        }
    }
}

/// A cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// By which the application calls it.
    pub name: String,
    /// How many items it holds.
    pub items: u32,
    /// Blocks that values are kept in: one for each item, unless `bitmap`.
    pub blocks: u32,
    /// Size of a block, bytes.
    pub blocksize: u64,
    /// Length of the longest key, bytes.
    pub keysize: u32,
    /// Number of chains of the hash table.
    pub hashsize: u32,
    /// A value may take several blocks in a row.
    pub bitmap: bool,
    /// When it is full, the item that was used least recently goes.
    pub lru: bool,
    /// When it is full, everything goes.
    pub clear_on_full: bool,
    /// Nothing expires.
    pub no_expire: bool,
    /// Being full is not worth a line in the log.
    pub ignore_full: bool,
    /// What a number begins with that is counted up or down.
    pub math_initial: i64,
}

/// What a cache begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheItem {
    /// The cache; `None` for each.
    pub cache: Option<String>,
    /// The item's key.
    pub key: String,
    /// Its value; `None` for what is in the file that the key names.
    pub value: Option<String>,
}

/// A number that the application keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// By which the application calls it.
    pub name: String,
    /// Its SNMP number, shown in the stats.
    pub oid: String,
    /// As in the stats: 0 for a counter, 1 for a gauge, 2 for an absolute number.
    pub kind: u8,
    /// What it begins with.
    pub initial: i64,
}

/// Mules that take their messages from one queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farm {
    /// By which the application calls it.
    pub name: String,
    /// The numbers of its mules.
    pub mules: Vec<u32>,
}

/// uWSGI's default size of a block, bytes.
const BLOCKSIZE: u64 = 65_535;

pub(super) fn cache2(config: &mut Config, value: &str) -> Outcome {
    let mut cache = Cache {
        name: String::new(),
        items: 0,
        blocks: 0,
        blocksize: BLOCKSIZE,
        keysize: 2048,
        hashsize: 65_535,
        bitmap: false,
        lru: false,
        clear_on_full: false,
        no_expire: false,
        ignore_full: false,
        math_initial: 0,
    };
    for pair in value.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let bad = |expected: String| format!("{expected} for '{key}' in a cache");
        let whole = |most: u64| sized(value, most).map_err(bad);
        match key {
            "name" => value.clone_into(&mut cache.name),
            "items" | "maxitems" | "max_items" => cache.items = whole(1 << 30)? as u32,
            "blocks" => cache.blocks = whole(1 << 30)? as u32,
            "blocksize" => cache.blocksize = whole(1 << 40)?,
            "keysize" | "key_size" => cache.keysize = whole(65_534)? as u32,
            "hashsize" | "hash_size" => cache.hashsize = whole(1 << 30)? as u32,
            "bitmap" => cache.bitmap = truth(value).map_err(bad)?,
            "purge_lru" | "lru" => cache.lru = truth(value).map_err(bad)?,
            "clear_on_full" => cache.clear_on_full = truth(value).map_err(bad)?,
            "no_expire" => cache.no_expire = truth(value).map_err(bad)?,
            "ignore_full" => cache.ignore_full = truth(value).map_err(bad)?,
            "math_initial" => cache.math_initial = value.parse().map_err(|_| bad("a whole number".into()))?,
            // How it is done, where it is done another way here.
            "hash" | "lazy_expire" | "lazy" | "sweep_on_full" | "lastmod" => {}
            "store" | "store_sync" | "storesync" | "store_delete" | "storedelete" => {
                config.lose(format!(
                    "cache2: '{key}' has no effect: a cache is kept in memory, and survives reloads and workers"
                ));
            }
            _ => {
                return Err(format!(
                    "name, items, blocks, blocksize, keysize and the like, and no '{key}', in a cache"
                ));
            }
        }
    }
    if cache.name.is_empty() || cache.items == 0 {
        return Err("at least name=NAME,items=N".into());
    }
    if cache.blocks == 0 {
        cache.blocks = cache.items;
    }
    if cache.blocks < cache.items {
        return Err(format!("at least as many blocks as items ({})", cache.items));
    }
    config.between.caches.push(cache);
    Ok(())
}

/// `--cache N`: one without a name of its own.
pub(super) fn cache(config: &mut Config, value: &str) -> Outcome {
    let items = number(value, &(1..=1_u32 << 30))?;
    cache2(config, &format!("name=default,items={items}"))
}

pub(super) fn cache_blocksize(config: &mut Config, value: &str) -> Outcome {
    config.between.cache_blocksize = sized(value, 1 << 40)?;
    Ok(())
}

/// Bytes or items, from 1, with uWSGI's suffixes.
fn sized(value: &str, most: u64) -> Result<u64, String> {
    let (digits, unit) = match value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']) {
        digits if digits.len() + 1 == value.len() => match value[digits.len()..].to_ascii_lowercase().as_str() {
            "k" => (digits, 1 << 10),
            "m" => (digits, 1 << 20),
            _ => (digits, 1 << 30),
        },
        _ => (value, 1),
    };
    let size = digits.parse::<u64>().ok().and_then(|size| size.checked_mul(unit));
    size.filter(|size| (1..=most).contains(size)).ok_or_else(|| format!("a whole number from 1 to {most}"))
}

/// As in uWSGI, what is before the first space is a cache's name.
fn of_cache(config: &mut Config, value: &str) -> (Option<String>, String) {
    let Some((cache, rest)) = value.split_once(' ') else { return (None, value.to_owned()) };
    if !config.between.caches.iter().any(|known| known.name == cache) {
        config
            .warnings
            .push(format!("no cache '{cache}' is made before this: nothing is put there unless one is later"));
    }
    (Some(cache.to_owned()), rest.to_owned())
}

pub(super) fn add_cache_item(config: &mut Config, value: &str) -> Outcome {
    let (cache, item) = of_cache(config, value);
    let (key, value) =
        item.split_once('=').ok_or("KEY=VALUE, after a cache's name and a space where there are several")?;
    config.between.items.push(CacheItem { cache, key: key.into(), value: Some(value.into()) });
    Ok(())
}

pub(super) fn load_file_in_cache(config: &mut Config, value: &str) -> Outcome {
    let (cache, key) = of_cache(config, value);
    config.between.items.push(CacheItem { cache, key, value: None });
    Ok(())
}

pub(super) fn metric(config: &mut Config, value: &str) -> Outcome {
    let mut metric = Metric { name: String::new(), oid: String::new(), kind: 0, initial: 0 };
    if value.contains('=') {
        for pair in value.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "name" => value.clone_into(&mut metric.name),
                "oid" => value.clone_into(&mut metric.oid),
                "type" => {
                    metric.kind = match value {
                        "counter" => 0,
                        "gauge" => 1,
                        "absolute" => 2,
                        _ => return Err("counter, gauge or absolute for 'type' in a metric".into()),
                    }
                }
                "initial_value" => {
                    metric.initial = value.parse().map_err(|_| "a whole number for 'initial_value'".to_owned())?;
                }
                _ => return Err(format!("name, type, oid and initial_value, and no '{key}', in a metric")),
            }
        }
    } else {
        value.clone_into(&mut metric.name);
    }
    if metric.name.is_empty() {
        return Err("a name, or name=NAME,type=TYPE".into());
    }
    config.between.metrics.push(metric);
    Ok(())
}

pub(super) fn mule(config: &mut Config, value: &str) -> Outcome {
    // In a file, `mule = true` is a mule that runs nothing of its own.
    let runs = Some(value.to_owned()).filter(|value| !matches!(value.as_str(), "" | "true"));
    config.between.mules.push(runs);
    Ok(())
}

pub(super) fn mules(config: &mut Config, value: &str) -> Outcome {
    for _ in 0..number(value, &(0..=10_000_u32))? {
        config.between.mules.push(None);
    }
    Ok(())
}

pub(super) fn farm(config: &mut Config, value: &str) -> Outcome {
    let expected = || "NAME:MULE[,MULE…], as in f:1,2".to_owned();
    let (name, mules) = value.split_once(':').ok_or_else(expected)?;
    let mules = mules.split(',').map(|mule| mule.trim().parse().map_err(|_| expected()));
    let mules = mules.collect::<Result<Vec<u32>, _>>()?;
    if name.is_empty() || mules.is_empty() {
        return Err(expected());
    }
    config.between.farms.push(Farm { name: name.to_owned(), mules });
    Ok(())
}

/// What depends on several of these options.
pub(super) fn finish(between: &mut Between) -> Outcome {
    let blocksize = between.cache_blocksize;
    if let Some(cache) = between.caches.iter_mut().find(|cache| cache.name == "default" && blocksize != BLOCKSIZE) {
        cache.blocksize = blocksize;
    }
    let count = between.mules.len();
    for farm in &between.farms {
        if let Some(mule) = farm.mules.iter().find(|mule| !(1..=count).contains(&(**mule as usize))) {
            return Err(format!("farm: '{}' has mule {mule}, and there are {count} mules", farm.name));
        }
    }
    for (index, cache) in between.caches.iter().enumerate() {
        if between.caches[..index].iter().any(|earlier| earlier.name == cache.name) {
            return Err(format!("cache2: there are two caches '{}'", cache.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_described_as_in_uwsgi() {
        let mut config = Config::default();
        cache2(&mut config, "name=a,items=10").unwrap();
        cache2(&mut config, "name=b,max_items=1k,blocksize=4096,blocks=2048,bitmap=1,lru=1,keysize=64").unwrap();
        let [a, b] = &config.between.caches[..] else { panic!("two caches") };
        assert_eq!((a.items, a.blocks, a.blocksize, a.keysize), (10, 10, 65_535, 2048));
        assert_eq!((b.items, b.blocks, b.blocksize, b.keysize), (1024, 2048, 4096, 64));
        assert!(b.bitmap && b.lru && !a.bitmap);
        for wrong in ["name=c", "items=3", "name=c,items=x", "name=c,items=10,blocks=5", "name=c,items=1,nodes=x"] {
            assert!(cache2(&mut config, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_farm_has_mules_that_there_are() {
        let mut config = Config::default();
        mules(&mut config, "2").unwrap();
        farm(&mut config, "f:1,2").unwrap();
        finish(&mut config.between).unwrap();
        farm(&mut config, "g:3").unwrap();
        assert!(finish(&mut config.between).unwrap_err().contains("mule 3"));
    }
}
