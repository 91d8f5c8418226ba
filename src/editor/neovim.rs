//! User commands for Neovim in `.nvim.lua`, which Neovim 0.9 and later reads from the current folder when `exrc` is set
//! and the user trusts the file (`:help exrc`, `:help trust`).
//!
//! Every command is started as a list of words, so no shell reads the prompt.

use super::task::{Needs, Task};
use super::{Content, Part};

const FUNCTIONS: &str = r#"do
  local root = vim.fn.getcwd()
  -- `termopen` is the name before Neovim 0.11.
  local function run(words)
    vim.cmd("botright new")
    if vim.fn.has("nvim-0.11") == 1 then
      vim.fn.jobstart(words, { term = true, cwd = root })
    else
      vim.fn.termopen(words, { cwd = root })
    end
    vim.cmd("startinsert")
  end
  local tasks = {
"#;

const COMMANDS: &str = r#"  }
  -- The faults of sandbox.yaml, for the quickfix list.
  local function faults()
    local lines = vim.fn.systemlist({ "sandbox", "plan", root })
    vim.fn.setqflist({}, " ", {
      title = "sandbox plan",
      lines = lines,
      efm = "%Eerror: %m,%Z%*[ ]--> %f:%l:%c,%-G%.%#",
    })
    vim.cmd("botright cwindow")
  end
  local names = vim.tbl_keys(tasks)
  table.insert(names, "check")
  table.sort(names)
  vim.api.nvim_create_user_command("Sandbox", function(given)
    local name, text = given.args:match("^(%S*)%s*(.*)$")
    if name == "check" then
      return faults()
    end
    local task = tasks[name]
    if not task then
      return vim.notify("sandbox: one of " .. table.concat(names, ", "), vim.log.levels.ERROR)
    end
    local words = vim.list_extend({ "sandbox" }, task.words)
    if not task.prompt then
      return run(words)
    end
    local function prompted(prompt)
      if prompt and prompt ~= "" then
        run(vim.list_extend(words, { prompt }))
      end
    end
    if text ~= "" then
      return prompted(text)
    end
    vim.ui.input({ prompt = "What should the agent do? " }, prompted)
  end, {
    nargs = "+",
    desc = "Run a verb of sandbox on this project",
    complete = function(lead)
      return vim.tbl_filter(function(name)
        return vim.startswith(name, lead)
      end, names)
    end,
  })
end
"#;

pub(super) fn parts(tasks: &[Task]) -> Vec<Part> {
    let lines: String = tasks.iter().map(line).collect();
    vec![Part { path: ".nvim.lua".to_owned(), content: Content::Block(format!("{FUNCTIONS}{lines}{COMMANDS}")) }]
}

fn line(task: &Task) -> String {
    let words: Vec<String> = task.arguments.iter().map(|word| format!("\"{word}\"")).collect();
    let prompt = if task.needs == Needs::Prompt { ", prompt = true" } else { "" };
    format!("    {} = {{ words = {{ {} }}{prompt} }},\n", task.name, words.join(", "))
}
