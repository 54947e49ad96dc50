// What a shell reads to complete koci's command lines: each script asks the program itself for the words.

/** By shell. `NAME` is what the program is called. */
export const scripts: Readonly<Record<string, string>> = {
  // readline takes ":" and "=" for ends of words: what is before the last of them is there already
  bash: `_NAME_complete() {
  local line=\${COMP_LINE:0:COMP_POINT} word
  word=\${line##*[[:space:]]}
  local before=\${word%"\${word##*[:=]}"}
  mapfile -t COMPREPLY < <(NAME completion --line "$line" bash 2>/dev/null)
  COMPREPLY=("\${COMPREPLY[@]#"$before"}")
  [[ \${COMPREPLY-} == *= ]] && compopt -o nospace
  return 0
}
complete -o default -F _NAME_complete NAME
`,
  zsh: `#compdef NAME
_NAME() {
  local -a found
  found=("\${(@f)$(NAME completion --line "\${(j: :)words[1,CURRENT]}" zsh 2>/dev/null)}")
  if [[ -n $found[1] ]]; then
    [[ $found[1] == *= ]] && compadd -S '' -a found || compadd -a found
  else
    _files
  fi
}
compdef _NAME NAME
`,
  fish: `function __NAME_complete
  NAME completion --line (commandline -cp | string collect) fish 2>/dev/null
end
complete -c NAME -a '(__NAME_complete)'
`,
}
