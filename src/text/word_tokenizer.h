// A tokenizer for small worlds: every word a token, numbers digit by digit.
#pragma once
#include <string>
#include <vector>

namespace molt {

// A tokenizer.json that Hugging Face `tokenizers` reads as it is (WordLevel). Its ids: <pad> 0, <s> 1, </s> 2, <unk> 3, then the
// space mark, the newline, the digits, common punctuation, and what `words` holds, in order and each once. A word of `words` that
// is more than letters counts as its parts ("don't" as don, ', t).
//
// A text becomes runs of letters and single other characters; each takes the one space before it with it, so that " tom" and
// "tom" are two tokens of the vocabulary, and " 14" is two: " 1", "4". The text is put behind a space if it does not begin with
// one. encode() begins with <s>. So decode(encode(text)) == text for every text of known parts that does not begin with a space.
std::string make_word_tokenizer(const std::vector<std::string>& words);

// The tokenizer_config.json to go with it: transformers' AutoTokenizer then loads the folder.
std::string word_tokenizer_config();

}  // namespace molt
