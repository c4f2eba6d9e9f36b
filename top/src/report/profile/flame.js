(function () {
  'use strict';
  var WIDTH = 1200, CHARACTER = 6.8;
  var frames = Array.prototype.map.call(document.querySelectorAll('.f'), function (g) {
    return {
      g: g, rect: g.querySelector('rect'), text: g.querySelector('text'),
      title: g.querySelector('title').textContent, name: g.querySelector('title').textContent.split('\n')[0],
      x: +g.dataset.x, w: +g.dataset.w, d: +g.dataset.d
    };
  });
  var all = +document.documentElement.dataset.samples || 1;
  var about = document.getElementById('about'), how = document.getElementById('how');
  var zoomed = frames[0], folded = [], query = '';

  function within(inner, outer) {
    return inner.d >= outer.d && inner.x >= outer.x && inner.x + inner.w <= outer.x + outer.w;
  }

  function show() {
    frames.forEach(function (f) {
      var inside = within(f, zoomed), caller = !inside && within(zoomed, f);
      var hidden = folded.some(function (fold) { return f !== fold && within(f, fold); });
      f.g.style.display = (inside || caller) && !hidden ? '' : 'none';
      f.g.classList.toggle('other', caller);
      var x = caller ? 0 : (f.x - zoomed.x) / zoomed.w * WIDTH, w = caller ? WIDTH : f.w / zoomed.w * WIDTH;
      f.rect.setAttribute('x', x.toFixed(2));
      f.rect.setAttribute('width', Math.max(w - 0.5, 0.1).toFixed(2));
      f.text.setAttribute('x', (x + 3).toFixed(2));
      var room = Math.floor((w - 6) / CHARACTER);
      var name = (folded.indexOf(f) >= 0 ? '+ ' : '') + f.name;
      f.text.textContent = room < 3 ? '' : name.length > room ? name.slice(0, room - 1) + '\u2026' : name;
    });
  }

  function search(text) {
    query = text || '';
    var pattern = null, last = [], samples = 0;
    if (query) {
      try { pattern = new RegExp(query, 'i'); } catch (_) {
        pattern = new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'i');
      }
    }
    frames.forEach(function (f) {
      var found = !!pattern && f.d > 0 && pattern.test(f.title);
      f.g.classList.toggle('found', found);
      // What is within something that was found is counted already.
      if (found && !last.some(function (other) { return within(f, other); })) {
        last = last.filter(function (other) { return !within(other, f); });
        last.push(f);
      }
    });
    last.forEach(function (f) { samples += f.w; });
    about.textContent = pattern ? (samples / all * 100).toFixed(1) + ' % have \u201c' + query + '\u201d' : ' ';
  }

  function ask() {
    var text = window.prompt('Show functions and files that match an expression:', query);
    if (text !== null) { search(text); }
  }

  frames.forEach(function (f) {
    f.g.setAttribute('tabindex', '0');
    f.g.addEventListener('click', function (event) {
      if (event.shiftKey) {
        var at = folded.indexOf(f);
        if (at >= 0) { folded.splice(at, 1); } else { folded.push(f); }
      } else {
        zoomed = f;
      }
      show();
    });
    f.g.addEventListener('mouseover', function () {
      if (!query) { about.textContent = f.title.replace(/\n/g, '; '); }
    });
  });
  document.addEventListener('keydown', function (event) {
    if (event.key === '/' || (event.key === 'f' && (event.ctrlKey || event.metaKey))) {
      event.preventDefault();
      ask();
    } else if (event.key === 'Escape') {
      zoomed = frames[0];
      folded = [];
      search('');
      show();
    } else if (event.key === 'Enter') {
      var at = frames.filter(function (f) { return f.g === document.activeElement; })[0];
      if (at) { zoomed = at; show(); }
    }
  });
  how.textContent = 'click: zoom \u00b7 shift-click: fold \u00b7 / or here: search \u00b7 esc: all again';
  how.style.cursor = 'pointer';
  how.addEventListener('click', ask);
}());
