#pragma once

#include <array>

#include "text/unicode.h"

// Where the Unicode versions inside the Rust tokenizer of transformers 5 differ from ICU 72's (15.0). Made by comparing
// the two on every code point; tests/text repeats the comparison.
namespace prefusion::text {

struct Range {
  CodePoint first;
  CodePoint last;
};

// Assigned between Unicode 15.0 (ICU 72) and Unicode 16.0, which the reference tokenizer's regular expressions know.
constexpr std::array<Range, 22> kNewLetters = {
    {{0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D4A, 0x10D65},
     {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E},
     {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0},
     {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
     {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}}};
constexpr std::array<Range, 7> kNewNumbers = {{{0x10D40, 0x10D49},
                                               {0x116D0, 0x116E3},
                                               {0x11BF0, 0x11BF9},
                                               {0x16130, 0x16139},
                                               {0x16D70, 0x16D79},
                                               {0x1CCF0, 0x1CCF9},
                                               {0x1E5F1, 0x1E5FA}}};

// Lower-case mappings of Unicode 16 and 17, which Rust's standard library knows.
struct Shift {
  CodePoint first;
  CodePoint last;
  CodePoint lower_of_first;
};
constexpr std::array<Shift, 10> kNewLower = {{{0x1C89, 0x1C89, 0x1C8A},
                                              {0xA7CB, 0xA7CB, 0x264},
                                              {0xA7CC, 0xA7CC, 0xA7CD},
                                              {0xA7CE, 0xA7CE, 0xA7CF},
                                              {0xA7D2, 0xA7D2, 0xA7D3},
                                              {0xA7D4, 0xA7D4, 0xA7D5},
                                              {0xA7DA, 0xA7DA, 0xA7DB},
                                              {0xA7DC, 0xA7DC, 0x19B},
                                              {0x10D50, 0x10D65, 0x10D70},
                                              {0x16EA0, 0x16EB8, 0x16EBB}}};

// Combining marks (and one composed vowel sign) that are younger than the Unicode 9 tables behind the reference's NFC
// and NFD: for it they are letters like any other, which neither change places with their neighbours nor compose.
constexpr std::array<Range, 38> kNeverReordered = {
    {{0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},
     {0xA82C, 0xA82C},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
     {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
     {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
     {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
     {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
     {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}}};

}  // namespace prefusion::text
